import { type RawBuilder, sql } from 'kysely'
import type { Page } from '../schemas/paging.ts'

/** A batch of rows as one JSON parameter, to be given column types: `${rows(input)} as i(id uuid, name text)`. */
export function rows(input: Record<string, unknown>[]): RawBuilder<unknown> {
  return sql`json_to_recordset(${JSON.stringify(input)}::json)`
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
