import { type RawBuilder, sql } from 'kysely'
import type { Page } from '../schemas/paging.ts'

/**
 * A batch of rows as an array for each column, which PostgreSQL reads faster than JSON: `rows('i', { id: 'uuid', at: 'timestamptz' }, input)`
 * is `i(id, at)`, in this order. What is undefined is null.
 */
export function rows(
  alias: string,
  columns: Record<string, string>,
  input: Record<string, unknown>[],
): RawBuilder<unknown> {
  const names = Object.keys(columns)
  const types = Object.values(columns)
  const arrays = sql.join(names.map((name, at) => sql`${arrayOf(input, name, types[at] as string)}::text`))
  const each = (one: (name: string, type: string) => string): RawBuilder<unknown> =>
    sql.raw(names.map((name, at) => one(name, types[at] as string)).join(', '))
  // Lists of different lengths are no array: each of them is text on its way. The arrays are one row first, so that the planner does
  // not look into them: it would hold a plan for one row to be better than the one for any number, and plan each time.
  return sql`(
    select ${each((name, type) => (isList(type) ? `u.${name}::${type} as ${name}` : `u.${name}`))}
    from (select ${arrays} offset 0) as a(${each((name) => name)})
    cross join lateral unnest(${each((name, type) => `a.${name}::${isList(type) ? 'text' : type}[]`)}) as u(${each((name) => name)})
  ) as ${sql.raw(alias)}`
}

/** A list, into which the planner does not look either: `id = any(${list('text', ids)})`. */
export const list = (type: string, values: unknown[]): RawBuilder<unknown> =>
  sql`(select ${values}::${sql.raw(type)}[])::${sql.raw(type)}[]`

const isList = (type: string): boolean => type.endsWith('[]')

function arrayOf(input: Record<string, unknown>[], name: string, type: string): string {
  const write = LITERALS[type] ?? text
  let elements = ''
  for (const row of input) {
    const value = row[name]
    elements += `${elements === '' ? '' : ','}${value === null || value === undefined ? 'NULL' : write(value)}`
  }
  return `{${elements}}`
}

const text = (value: unknown): string => `"${String(value).replace(/["\\]/g, '\\$&')}"`
const json = (value: unknown): string => text(JSON.stringify(value))

/** How an element of an array is written, where it is not text. */
const LITERALS: Record<string, (value: unknown) => string> = {
  uuid: String,
  smallint: String,
  integer: String,
  bigint: String,
  float8: String,
  boolean: String,
  timestamptz: String,
  json,
  jsonb: json,
  'integer[]': (value) => `"{${value}}"`,
}

/** Milliseconds to what PostgreSQL parses, null stays null. */
export const instant = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString())
export const millis = (date: Date | null): number | null => (date === null ? null : date.getTime())

/** Without the properties that are null or undefined: an absent field is absent in an answer. */
export function compact<T extends Record<string, unknown>>(
  value: T,
): { [K in keyof T]?: Exclude<T[K], null | undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== null && v !== undefined)) as never
}

/** A page from `limit + 1` rows. */
export function page<Row, T>(found: Row[], limit: number, key: (row: Row) => string, map: (row: Row) => T): Page<T> {
  const shown = found.slice(0, limit)
  const last = shown.at(-1)
  return { items: shown.map(map), next: found.length > limit && last ? key(last) : null }
}
