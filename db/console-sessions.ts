import { sql } from 'kysely'
import type { Grant, Role } from '../schemas/principals.ts'
import type { Audited } from './audit.ts'
import type { Db } from './connect.ts'
import { list } from './rows.ts'

/** A session that is known, working or not, and whose it is. */
export interface StoredSession {
  id: string
  hash: Buffer
  tokenId: string
  principal: { id: string; name: string; role: Role }
  grants: Grant[]
  /** Idle for too long, or its token was revoked, or its principal deleted. */
  ended: boolean
  /** Until it, or its token, expires; 0 or less: it has. */
  remainingMs: number
}

export async function findSessions(db: Db, hashes: Buffer[], idleSeconds: number): Promise<StoredSession[]> {
  const found = await sql<Omit<StoredSession, 'principal'> & { principalId: string; name: string; role: Role }>`
    select s.id, s.secret_hash as hash, s.token_id as "tokenId", p.id as "principalId", p.name, p.role, p.grants,
      t.revoked_at is not null or p.deleted_at is not null
        or s.last_used_at <= n.now - make_interval(secs => ${idleSeconds}) as ended,
      (extract(epoch from least(s.expires_at, t.expires_at) - n.now) * 1000)::float8 as "remainingMs"
    from console_sessions s join tokens t on t.id = s.token_id join principals p on p.id = t.principal_id,
      (select clock_timestamp() as now) n
    where s.secret_hash = any(${list('bytea', hashes)})`.execute(db)
  return found.rows.map(({ principalId, name, role, ...session }) => ({
    ...session,
    principal: { id: principalId, name, role },
  }))
}

/** Which of these sessions work, as far as they themselves say. */
export async function findLiveSessions(db: Db, ids: string[], idleSeconds: number): Promise<Set<string>> {
  const found = await sql<{ id: string }>`
    select id from console_sessions where id = any(${list('uuid', ids)}) and expires_at > clock_timestamp()
      and last_used_at > clock_timestamp() - make_interval(secs => ${idleSeconds})`.execute(db)
  return new Set(found.rows.map((row) => row.id))
}

/** Of the token's sessions only `most` are left, this one included: the oldest ones end. */
export async function insertSession(
  db: Audited,
  session: { id: string; tokenId: string; hash: Buffer; maxSeconds: number },
  most: number,
): Promise<void> {
  await sql`
    with ended as (
      delete from console_sessions where id in (
        select id from console_sessions where token_id = ${session.tokenId}
        order by created_at desc, id desc offset ${most - 1})
    )
    insert into console_sessions (id, token_id, secret_hash, expires_at)
    values (${session.id}, ${session.tokenId}, ${session.hash},
      clock_timestamp() + make_interval(secs => ${session.maxSeconds}))`.execute(db)
}

export async function deleteSession(db: Audited, id: string): Promise<void> {
  await db.deleteFrom('console_sessions').where('id', '=', id).execute()
}

/** Ended ones are kept for a day, so that a browser that comes late is not taken for somebody who guesses. */
export async function forgetEndedSessions(db: Db, idleSeconds: number, limit: number): Promise<void> {
  await sql`
    delete from console_sessions where id in (
      select id from console_sessions where expires_at < clock_timestamp() - interval '1 day'
        or last_used_at < clock_timestamp() - interval '1 day' - make_interval(secs => ${idleSeconds})
      limit ${limit})`.execute(db)
}
