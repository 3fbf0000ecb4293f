import { sql } from 'kysely'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Grant, Role, Token } from '../schemas/principals.ts'
import type { Audited } from './audit.ts'
import type { Db } from './connect.ts'
import { compact, list, millis, page } from './rows.ts'

/** A token that exists, working or not, and whose it is. */
export interface StoredToken {
  id: string
  hash: Buffer
  principal: { id: string; name: string; role: Role }
  grants: Grant[]
  /** Revoked, or its principal is deleted. */
  revoked: boolean
  /** Null: it does not expire. 0 or less: it has. */
  remainingMs: number | null
}

export async function findTokens(db: Db, hashes: Buffer[]): Promise<StoredToken[]> {
  const found = await db
    .selectFrom('tokens')
    .innerJoin('principals', 'principals.id', 'tokens.principal_id')
    .select(['tokens.id', 'token_hash', 'principal_id', 'principals.name', 'role', 'grants', 'expires_at'])
    .select(sql<boolean>`revoked_at is not null or deleted_at is not null`.as('revoked'))
    .select(sql<Date>`clock_timestamp()`.as('now'))
    .where('token_hash', '=', sql<Buffer>`any(${list('bytea', hashes)})`)
    .execute()
  return found.map((row) => ({
    id: row.id,
    hash: row.token_hash,
    principal: { id: row.principal_id, name: row.name, role: row.role as Role },
    grants: row.grants as Grant[],
    revoked: row.revoked,
    remainingMs: row.expires_at === null ? null : (millis(row.expires_at) as number) - row.now.getTime(),
  }))
}

/** Which of these tokens work. */
export async function findLiveTokens(db: Db, ids: string[]): Promise<Set<string>> {
  const found = await sql<{ id: string }>`
    select t.id from tokens t join principals p on p.id = t.principal_id
    where t.id = any(${list('uuid', ids)}) and t.revoked_at is null and p.deleted_at is null
      and (t.expires_at is null or t.expires_at > clock_timestamp())`.execute(db)
  return new Set(found.rows.map((row) => row.id))
}

export async function hasToken(db: Db): Promise<boolean> {
  return (await db.selectFrom('tokens').select('id').limit(1).executeTakeFirst()) !== undefined
}

/** Makes sure that the principal exists and that this token is one of its. Safe from several nodes at once. */
export async function ensureToken(
  db: Audited,
  token: { id: string; principalId: string; principalName: string; role: Role; name: string; hash: Buffer },
): Promise<void> {
  await sql`
    with principal as (
      insert into principals (id, name, role) values (${token.principalId}, ${token.principalName}, ${token.role})
      on conflict (name) do update set role = excluded.role returning id
    )
    insert into tokens (id, principal_id, name, token_hash)
    select ${token.id}, id, ${token.name}, ${token.hash} from principal
    on conflict (token_hash) do nothing`.execute(db)
}

/** Answers the principal's name; undefined if there is no such principal. */
export async function insertToken(
  db: Audited,
  token: { id: string; principalId: string; name: string; hash: Buffer; expiresAt: string | null },
): Promise<string | undefined> {
  const found = await sql<{ name: string }>`
    with principal as (select id, name from principals where id = ${token.principalId} and deleted_at is null),
    token as (
      insert into tokens (id, principal_id, name, token_hash, expires_at)
      select ${token.id}, id, ${token.name}, ${token.hash}, ${token.expiresAt}::timestamptz from principal
    )
    select name from principal`.execute(db)
  return found.rows[0]?.name
}

const LISTED = [
  'tokens.id',
  'principal_id',
  'principals.name as principal',
  'tokens.name',
  'tokens.created_at',
  'expires_at',
  'last_used_at',
] as const

/** Tokens that were not revoked. */
const tokens = (db: Db) =>
  db
    .selectFrom('tokens')
    .innerJoin('principals', 'principals.id', 'tokens.principal_id')
    .select(LISTED)
    .where('revoked_at', 'is', null)
    .where('deleted_at', 'is', null)

/** Oldest first. */
export async function listTokens(db: Db, paging: Paging): Promise<Page<Token>> {
  let query = tokens(db)
  if (paging.after !== undefined) query = query.where('tokens.id', '>', paging.after)
  const found = await query
    .orderBy('tokens.id')
    .limit(paging.limit + 1)
    .execute()
  return page(found, paging.limit, (row) => row.id, toToken)
}

export async function findToken(db: Db, id: string): Promise<Token | undefined> {
  const row = await tokens(db).where('tokens.id', '=', id).executeTakeFirst()
  return row && toToken(row)
}

export async function revokeToken(db: Audited, id: string): Promise<void> {
  await db.updateTable('tokens').set({ revoked_at: sql<Date>`clock_timestamp()` }).where('id', '=', id).execute()
}

function toToken(row: {
  id: string
  principal_id: string
  principal: string
  name: string
  created_at: Date
  expires_at: Date | null
  last_used_at: Date | null
}): Token {
  return {
    id: row.id,
    principalId: row.principal_id,
    principal: row.principal,
    name: row.name,
    createdAt: row.created_at.toISOString(),
    ...compact({ expiresAt: row.expires_at?.toISOString(), lastUsedAt: row.last_used_at?.toISOString() }),
  }
}
