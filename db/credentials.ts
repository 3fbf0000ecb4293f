import { sql } from 'kysely'
import type { ClientConfig } from '../schemas/clients.ts'
import { unpooled } from '../schemas/unpooled.ts'
import type { Db } from './connect.ts'
import { list, millis } from './rows.ts'

/** What a client's login is judged by. */
export interface StoredCredential {
  id: string
  keyHash: Buffer
  /** The key before the last rotation, and for how much longer it works, ms; 0 or less: not any more. */
  previous: { keyHash: Buffer; remainingMs: number } | null
  disabled: boolean
  deleted: boolean
  config: ClientConfig
}

interface CredentialRow {
  id: string
  key_hash: Buffer
  previous_key_hash: Buffer | null
  previous_key_until: Date | null
  now: Date
  disabled: boolean
  deleted: boolean
  max_in_flight: number
  zones: string[]
}

const CREDENTIAL = sql`
  k.id, k.key_hash, k.previous_key_hash, k.previous_key_until, clock_timestamp() as now, k.disabled,
  k.deleted_at is not null as deleted, k.max_in_flight,
  array(select z.zone from zone_members z where z.client_id = k.id order by z.zone) as zones`

/** By client id; also of deleted clients, so that their keys are recognised. */
export async function findCredentials(db: Db, ids: string[]): Promise<StoredCredential[]> {
  const found =
    await sql<CredentialRow>`select ${CREDENTIAL} from clients k where k.id = any(${list('text', ids)})`.execute(db)
  return found.rows.map(toCredential)
}

/** By the hash of a key that is, or was before the last rotation, the client's. */
export async function findCredentialsByKey(db: Db, keyHashes: Buffer[]): Promise<StoredCredential[]> {
  const found = await sql<CredentialRow>`
    select ${CREDENTIAL} from clients k where k.key_hash = any(${list('bytea', keyHashes)})
    union all
    select ${CREDENTIAL} from clients k where k.previous_key_hash = any(${list('bytea', keyHashes)})`.execute(db)
  return found.rows.map(toCredential)
}

/** Keys whose grace is over since not long ago: whoever logged in with one is to go. */
export async function findEndedKeys(db: Db, withinSeconds: number): Promise<{ clientId: string; keyHash: Buffer }[]> {
  const found = await sql<{ id: string; previous_key_hash: Buffer }>`
    select id, previous_key_hash from clients
    where previous_key_until between clock_timestamp() - make_interval(secs => ${withinSeconds}) and clock_timestamp()`.execute(
    db,
  )
  return found.rows.map((row) => ({ clientId: row.id, keyHash: row.previous_key_hash }))
}

const toCredential = (row: CredentialRow): StoredCredential => ({
  id: row.id,
  // A connection keeps it.
  keyHash: unpooled(row.key_hash),
  previous:
    row.previous_key_hash === null
      ? null
      : {
          keyHash: unpooled(row.previous_key_hash),
          remainingMs: (millis(row.previous_key_until) ?? 0) - row.now.getTime(),
        },
  disabled: row.disabled,
  deleted: row.deleted,
  config: { zones: row.zones, maxInFlight: row.max_in_flight },
})
