import { sql } from 'kysely'
import type { Principal, Role } from '../schemas/principals.ts'
import type { Db } from './connect.ts'

/** The principal that a live token belongs to. */
export async function findPrincipalByToken(db: Db, tokenHash: Buffer): Promise<Principal | undefined> {
  const row = await db
    .selectFrom('tokens')
    .innerJoin('principals', 'principals.id', 'tokens.principal_id')
    .select(['principals.id', 'principals.name', 'principals.role'])
    .where('token_hash', '=', tokenHash)
    .where('revoked_at', 'is', null)
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
