import { isDeepStrictEqual } from 'node:util'
import { sql, type Transaction } from 'kysely'
import type { AuditKind, AuditRecord, ListAudit } from '../schemas/audit.ts'
import type { Json } from '../schemas/json.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Db } from './connect.ts'
import { compact, page } from './rows.ts'
import type { Database } from './schema.ts'

declare const AUDITED: unique symbol
/** A transaction that cannot commit without its audit row: what is governed is changed by functions that take no other. */
export type Audited = Transaction<Database> & { readonly [AUDITED]: true }

/** Who asked for a change, and from where; null: the server itself. */
export interface ChangedBy {
  principal: string | null
  address: string | null
  requestId: string | null
}

type Facts = Record<string, unknown>

/**
 * Runs a change and writes it down, both or neither. Changes of one subject follow each other, so that `before` is what this
 * change found. An error, its own or PostgreSQL's, undoes everything.
 */
export async function audited<T>(
  db: Db,
  by: ChangedBy,
  what: { kind: AuditKind; subject: string },
  change: (trx: Audited) => Promise<{ before: Facts | null; after: Facts | null; result: T }>,
): Promise<T> {
  return db.transaction().execute(async (trx) => {
    await sql`select pg_advisory_xact_lock(hashtextextended(${what.subject}, 0))`.execute(trx)
    const { before, after, result } = await change(trx as Audited)
    const shown = differing(before, after)
    await trx
      .insertInto('audit')
      .values({
        ...what,
        principal: by.principal,
        address: by.address,
        request_id: by.requestId,
        before: JSON.stringify(shown.before),
        after: JSON.stringify(shown.after),
      })
      .execute()
    return result
  })
}

/** Of two states only the fields that differ; of what began or ended, everything. */
export function differing(before: Facts | null, after: Facts | null): { before: Facts | null; after: Facts | null } {
  if (!before || !after) return { before, after }
  const changed = new Set([...Object.keys(before), ...Object.keys(after)])
  for (const key of changed) if (isDeepStrictEqual(before[key], after[key])) changed.delete(key)
  const only = (facts: Facts): Facts => Object.fromEntries(Object.entries(facts).filter(([key]) => changed.has(key)))
  return { before: only(before), after: only(after) }
}

/** Newest first. */
export async function listAudit(db: Db, filter: ListAudit, paging: Paging): Promise<Page<AuditRecord>> {
  let query = db.selectFrom('audit').selectAll()
  if (filter.principal !== undefined) query = query.where('principal', '=', filter.principal)
  if (filter.kind !== undefined) query = query.where('kind', '=', filter.kind)
  if (filter.subject !== undefined) query = query.where('subject', '=', filter.subject)
  if (filter.since !== undefined) query = query.where('at', '>=', sql<Date>`${filter.since}::timestamptz`)
  if (filter.until !== undefined) query = query.where('at', '<', sql<Date>`${filter.until}::timestamptz`)
  if (paging.after !== undefined) query = query.where('id', '<', Number(paging.after))
  const found = await query
    .orderBy('id', 'desc')
    .limit(paging.limit + 1)
    .execute()
  return page(
    found,
    paging.limit,
    (row) => String(row.id),
    (row) => ({
      id: String(row.id),
      at: row.at.toISOString(),
      kind: row.kind as AuditKind,
      subject: row.subject,
      before: row.before as Record<string, Json> | null,
      after: row.after as Record<string, Json> | null,
      ...compact({
        principal: row.principal ?? undefined,
        address: row.address ?? undefined,
        requestId: row.request_id ?? undefined,
      }),
    }),
  )
}
