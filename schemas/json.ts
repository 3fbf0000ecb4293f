import { z } from 'zod'

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** Deeper documents are refused: recursion limits differ between parsers, so a deep one would be poison somewhere. */
const MAX_DEPTH = 64

/**
 * Why a parsed JSON value cannot be stored and sent on unchanged, or undefined if it can.
 * PostgreSQL's jsonb rejects U+0000 and lone surrogates, so such a text accepted at the edge would fail for ever behind it;
 * 1e400 parses to Infinity and would silently become null.
 */
export function jsonFault(value: unknown, depth = 0): string | undefined {
  if (depth > MAX_DEPTH) return `is nested deeper than ${MAX_DEPTH} levels`
  if (typeof value === 'string') return textFault(value)
  if (typeof value === 'number') return Number.isFinite(value) ? undefined : 'has a number that is out of range'
  if (Array.isArray(value)) return firstFault(value, depth)
  if (value !== null && typeof value === 'object') {
    if (Object.hasOwn(value, '__proto__')) return 'has a key __proto__, which a careless copy would make a prototype'
    return firstFault(Object.keys(value), depth) ?? firstFault(Object.values(value), depth)
  }
  return undefined
}

function firstFault(values: unknown[], depth: number): string | undefined {
  for (const value of values) {
    const fault = jsonFault(value, depth + 1)
    if (fault) return fault
  }
  return undefined
}

function textFault(text: string): string | undefined {
  if (text.includes('\u0000')) return 'contains the character U+0000'
  if (!text.isWellFormed()) return 'contains an unpaired surrogate'
  return undefined
}

// `fatal`: otherwise U+FFFD took the place of what is not UTF-8, and what came would be stored changed.
const UTF8 = new TextDecoder('utf-8', { fatal: true })

/** Throws unless it is JSON in UTF-8. */
export const decodeJson = (bytes: Buffer): unknown => JSON.parse(UTF8.decode(bytes))

/** Undefined if it is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Any JSON document that PostgreSQL and every JSON parser keep as it is. */
export const JsonValue = z
  .custom<Json>((value) => value !== undefined)
  .superRefine((value, ctx) => {
    const fault = jsonFault(value)
    if (fault) ctx.addIssue({ code: 'custom', message: fault })
  })
