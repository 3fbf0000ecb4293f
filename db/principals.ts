import { sql } from 'kysely'
import type { Page, Paging } from '../schemas/paging.ts'
import type { CreatePrincipal, ListedPrincipal, Principal, Role, Token } from '../schemas/principals.ts'
import type { Db } from './connect.ts'
import { compact, page } from './rows.ts'

/** The principal that a live token belongs to. */
export async function findPrincipalByToken(db: Db, tokenHash: Buffer): Promise<Principal | undefined> {
  const row = await db
    .selectFrom('tokens')
    .innerJoin('principals', 'principals.id', 'tokens.principal_id')
    .select(['principals.id', 'principals.name', 'principals.role'])
    .where('token_hash', '=', tokenHash)
    .where('revoked_at', 'is', null)
    .where('deleted_at', 'is', null)
    .where((where) =>
      where.or([where('expires_at', 'is', null), where('expires_at', '>', sql<Date>`clock_timestamp()`)]),
    )
    .executeTakeFirst()
  return row && { id: row.id, name: row.name, role: row.role as Role }
}

export async function hasToken(db: Db): Promise<boolean> {
  return (await db.selectFrom('tokens').select('id').limit(1).executeTakeFirst()) !== undefined
}

/** Makes sure that the principal exists and that this token is one of its. Safe from several nodes at once. */
export async function ensureToken(
  db: Db,
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

/** Answers undefined if the name is taken: also by a deleted principal, whose commands still bear it. */
export async function insertPrincipal(
  db: Db,
  id: string,
  principal: CreatePrincipal,
): Promise<ListedPrincipal | undefined> {
  const row = await db
    .insertInto('principals')
    .values({ id, ...principal })
    .onConflict((conflict) => conflict.column('name').doNothing())
    .returningAll()
    .executeTakeFirst()
  return row && toPrincipal(row)
}

export async function listPrincipals(db: Db, paging: Paging): Promise<Page<ListedPrincipal>> {
  let query = db.selectFrom('principals').selectAll().where('deleted_at', 'is', null)
  if (paging.after !== undefined) query = query.where('name', '>', paging.after)
  const found = await query
    .orderBy('name')
    .limit(paging.limit + 1)
    .execute()
  return page(found, paging.limit, (row) => row.name, toPrincipal)
}

/** Its tokens stop working with it. Answers false if there is none. */
export async function deletePrincipal(db: Db, id: string): Promise<boolean> {
  const row = await db
    .updateTable('principals')
    .set({ deleted_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .where('deleted_at', 'is', null)
    .returning('id')
    .executeTakeFirst()
  return row !== undefined
}

/** Answers false if there is no such principal. */
export async function insertToken(
  db: Db,
  token: { id: string; principalId: string; name: string; hash: Buffer; expiresAt: string | null },
): Promise<boolean> {
  const found = await sql`
    insert into tokens (id, principal_id, name, token_hash, expires_at)
    select ${token.id}, id, ${token.name}, ${token.hash}, ${token.expiresAt}::timestamptz
    from principals where id = ${token.principalId} and deleted_at is null
    returning id`.execute(db)
  return found.rows.length > 0
}

/** Tokens that were not revoked, oldest first. */
export async function listTokens(db: Db, paging: Paging): Promise<Page<Token>> {
  let query = db
    .selectFrom('tokens')
    .innerJoin('principals', 'principals.id', 'tokens.principal_id')
    .select([
      'tokens.id',
      'principal_id',
      'principals.name as principal',
      'tokens.name',
      'tokens.created_at',
      'expires_at',
    ])
    .where('revoked_at', 'is', null)
    .where('deleted_at', 'is', null)
  if (paging.after !== undefined) query = query.where('tokens.id', '>', paging.after)
  const found = await query
    .orderBy('tokens.id')
    .limit(paging.limit + 1)
    .execute()
  return page(
    found,
    paging.limit,
    (row) => row.id,
    (row) => ({
      id: row.id,
      principalId: row.principal_id,
      principal: row.principal,
      name: row.name,
      createdAt: row.created_at.toISOString(),
      ...compact({ expiresAt: row.expires_at?.toISOString() }),
    }),
  )
}

export async function revokeToken(db: Db, id: string): Promise<boolean> {
  const row = await db
    .updateTable('tokens')
    .set({ revoked_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .returning('id')
    .executeTakeFirst()
  return row !== undefined
}

const toPrincipal = (row: { id: string; name: string; role: string; created_at: Date }): ListedPrincipal => ({
  id: row.id,
  name: row.name,
  role: row.role as Role,
  createdAt: row.created_at.toISOString(),
})
