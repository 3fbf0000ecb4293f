import { sql } from 'kysely'
import type { Client } from '../schemas/clients.ts'
import type { Enrolment } from '../schemas/enrolments.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Audited } from './audit.ts'
import { findClient } from './clients.ts'
import type { Db } from './connect.ts'
import { compact, page } from './rows.ts'

/** What a code is judged by. */
export interface StoredEnrolment {
  id: string
  codeHash: Buffer
  zones: string[]
  idPrefix: string | null
  maxUses: number
  uses: number
  revoked: boolean
  /** 0 or less: it has expired. */
  remainingMs: number
}

interface StoredRow {
  id: string
  code_hash: Buffer
  zones: string[]
  id_prefix: string | null
  max_uses: number
  uses: number
  revoked: boolean
  remaining_ms: number
}

const STORED = sql`
  id, code_hash, zones, id_prefix, max_uses, uses, revoked_at is not null as revoked,
  extract(epoch from expires_at - clock_timestamp())::float8 * 1000 as remaining_ms`

/** By the hashes of their codes, whether they may still be used or not. */
export async function findEnrolmentsByCode(db: Db, codeHashes: Buffer[]): Promise<StoredEnrolment[]> {
  const found = await sql<StoredRow>`
    select ${STORED} from enrolments where code_hash = any(${codeHashes}::bytea[])`.execute(db)
  return found.rows.map(toStored)
}

/** As it is once all uses before this one are committed or undone; nobody else uses it until this transaction ends. */
export async function lockEnrolment(db: Audited, id: string): Promise<StoredEnrolment> {
  const found = await sql<StoredRow>`select ${STORED} from enrolments where id = ${id} for no key update`.execute(db)
  return toStored(found.rows[0] as StoredRow)
}

export async function countUse(db: Audited, id: string): Promise<void> {
  await sql`update enrolments set uses = uses + 1 where id = ${id}`.execute(db)
}

/**
 * Whether no client has or had this key. Who asks next about the same one waits until this transaction ends, so that two
 * redemptions with one key are never both told yes.
 */
export async function isFreeKey(db: Audited, keyHash: Buffer): Promise<boolean> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${`key:${keyHash.toString('hex')}`}, 0))`.execute(db)
  const found = await sql`
    select from clients where key_hash = ${keyHash} union all select from clients where previous_key_hash = ${keyHash}`.execute(
    db,
  )
  return found.rows.length === 0
}

/** The client that came by this enrolment and has this key. */
export async function findEnrolled(db: Db, id: string, keyHash: Buffer): Promise<Client | undefined> {
  const found = await db
    .selectFrom('clients')
    .select('id')
    .where('key_hash', '=', keyHash)
    .where('enrolment_id', '=', id)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
  return found && findClient(db, found.id)
}

export interface NewEnrolment {
  id: string
  name: string
  codeHash: Buffer
  zones: string[]
  idPrefix: string | null
  maxUses: number
  createdBy: string
  ttlSeconds: number
}

export async function insertEnrolment(db: Audited, enrolment: NewEnrolment): Promise<Enrolment> {
  const row = await db
    .insertInto('enrolments')
    .values({
      id: enrolment.id,
      name: enrolment.name,
      code_hash: enrolment.codeHash,
      zones: enrolment.zones,
      id_prefix: enrolment.idPrefix,
      max_uses: enrolment.maxUses,
      created_by: enrolment.createdBy,
      expires_at: sql<Date>`clock_timestamp() + make_interval(secs => ${enrolment.ttlSeconds})`,
    })
    .returningAll()
    .executeTakeFirstOrThrow()
  return toEnrolment(row)
}

/** Those that were not revoked, oldest first. */
export async function listEnrolments(db: Db, paging: Paging): Promise<Page<Enrolment>> {
  let query = db.selectFrom('enrolments').selectAll().where('revoked_at', 'is', null)
  if (paging.after !== undefined) query = query.where('id', '>', paging.after)
  const found = await query
    .orderBy('id')
    .limit(paging.limit + 1)
    .execute()
  return page(found, paging.limit, (row) => row.id, toEnrolment)
}

/** Answers what it revoked, with all its uses; undefined if there is none, or it was revoked before. */
export async function revokeEnrolment(db: Audited, id: string): Promise<Enrolment | undefined> {
  const row = await db
    .updateTable('enrolments')
    .set({ revoked_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .returningAll()
    .executeTakeFirst()
  return row && toEnrolment(row)
}

const toStored = (row: StoredRow): StoredEnrolment => ({
  id: row.id,
  codeHash: row.code_hash,
  zones: row.zones,
  idPrefix: row.id_prefix,
  maxUses: row.max_uses,
  uses: row.uses,
  revoked: row.revoked,
  remainingMs: row.remaining_ms,
})

const toEnrolment = (row: {
  id: string
  name: string
  zones: string[]
  id_prefix: string | null
  max_uses: number
  uses: number
  created_by: string
  created_at: Date
  expires_at: Date
}): Enrolment => ({
  id: row.id,
  name: row.name,
  zones: row.zones,
  maxUses: row.max_uses,
  uses: row.uses,
  createdBy: row.created_by,
  createdAt: row.created_at.toISOString(),
  expiresAt: row.expires_at.toISOString(),
  ...compact({ idPrefix: row.id_prefix }),
})
