import { isDeepStrictEqual } from 'node:util'
import { type AlertChange, alertKey, type OpenAlert } from '../../db/alert-store.ts'
import type { AlertKind } from '../../schemas/alerts.ts'
import type { Json } from '../../schemas/json.ts'
import { KINDS } from './kinds.ts'

/** Something that an alert is about was seen. */
export interface Sighting {
  kind: AlertKind
  subject: string
  clientId: string | null
  commandId: string | null
  count: number
  message: string
  details: Record<string, Json>
  /** When it happened, ms of PostgreSQL's clock; null if nothing new happened. */
  at: number | null
}

/** What an alert says is not so any more. */
export interface Ending {
  kind: AlertKind
  subject: string
  because: string
  /** It ends only what was seen until then, ms; null: whatever was seen. */
  at: number | null
}

export type Seen = Sighting | Ending

/** An alert in hand: as it was stored, if it was, with what this look makes of it. */
interface Working {
  alert: OpenAlert
  resolution: string | null
}

/** Lists in `details` show the last so many. */
export const SHOWN = 10

/**
 * What becomes of the open alerts after all that was seen, in its order: one open alert per kind and subject. What began and
 * ended within one look leaves no trace.
 */
export function fold(open: Map<string, OpenAlert>, seen: Seen[], now: number, newId: () => string): AlertChange[] {
  const working = new Map<string, Working | undefined>()
  for (const one of seen) {
    const key = alertKey(one)
    const stored = open.get(key)
    const before = working.has(key) ? working.get(key) : stored && { alert: stored, resolution: null }
    working.set(key, 'because' in one ? end(before, one) : see(before, one, now, newId))
  }
  return [...working].flatMap(([key, after]) => (after ? changeOf(open.get(key), after) : []))
}

function see(before: Working | undefined, seen: Sighting, now: number, newId: () => string): Working {
  const { kind, subject, clientId, commandId, count, message, details } = seen
  const { severity, counts } = KINDS[kind]
  if (!before) {
    const lastAt = seen.at ?? now
    return {
      alert: { id: newId(), kind, subject, clientId, commandId, severity, message, details, count, lastAt },
      resolution: null,
    }
  }
  const { alert } = before
  return {
    alert: {
      ...alert,
      message,
      details: counts === 'now' ? details : joined(alert.details, details),
      count: counts === 'now' ? count : alert.count + count,
      lastAt: Math.max(alert.lastAt, seen.at ?? 0),
    },
    resolution: null,
  }
}

function end(before: Working | undefined, { because, at }: Ending): Working | undefined {
  if (!before || (at !== null && before.alert.lastAt > at)) return before
  const count = KINDS[before.alert.kind].counts === 'now' ? 0 : before.alert.count
  return { alert: { ...before.alert, count }, resolution: because }
}

/** The newer facts; lists are continued, newest first. */
function joined(older: Record<string, Json>, newer: Record<string, Json>): Record<string, Json> {
  const both = Object.entries(newer).map(([name, value]) => {
    const before = older[name]
    if (!Array.isArray(value) || !Array.isArray(before)) return [name, value]
    return [name, [...new Set([...value, ...before])].slice(0, SHOWN)]
  })
  return { ...older, ...Object.fromEntries(both) }
}

function changeOf(stored: OpenAlert | undefined, { alert, resolution }: Working): AlertChange[] {
  if (!stored && resolution !== null) return []
  // By value: JSON that was stored comes back with its keys in another order.
  const same = stored && resolution === null && isDeepStrictEqual(stored, alert)
  return same ? [] : [{ alert, isNew: !stored, resolution }]
}
