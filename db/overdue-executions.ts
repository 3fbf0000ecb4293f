import { sql } from 'kysely'
import { openOf, pendingOf } from './client-work.ts'
import type { Db } from './connect.ts'
import type { ExecutionKey } from './executions.ts'
import { rows } from './rows.ts'

export interface DueWork {
  key: ExecutionKey
  why: 'expire' | 'timeout' | 'due'
}

/**
 * Pending rows past their expiry, handed-over rows past their deadline, and waits that are over; at most `limit` of each.
 * `attempt > 0` is the mark of their indices (migration 0012).
 */
export async function findDueExecutions(db: Db, limit: number): Promise<DueWork[]> {
  const found = await sql<{ command_id: string; client_id: string; why: DueWork['why'] }>`
    (select command_id, client_id, 'expire' as why from executions
      where status = 'pending' and attempt > 0 and expires_at <= clock_timestamp() order by expires_at limit ${limit})
    union all
    (select command_id, client_id, 'timeout' from executions
      where status in ('queued', 'delivered', 'running') and attempt > 0 and deadline <= clock_timestamp()
      order by deadline limit ${limit})
    union all
    (select command_id, client_id, 'due' from executions
      where status = 'pending' and not_before <= clock_timestamp() order by not_before limit ${limit})`.execute(db)
  return found.rows.map((row) => ({ key: { commandId: row.command_id, clientId: row.client_id }, why: row.why }))
}

interface NeglectedSession {
  clientId: string
  epoch: number
  /** Another session is the client's current one: this one has to close (rule 10). */
  superseded: boolean
  /** It has had claims for so long without a PUBACK that one may be of a statement that got no answer, and came through later. */
  stale: boolean
}

/** A PUBACK takes less; a session that is slower is only looked at for nothing. */
const STALE_SECONDS = 5

/** Of these sessions, those with something to claim or a successor: what the fast path missed. */
export async function findNeglectedSessions(
  db: Db,
  sessions: { clientId: string; epoch: number }[],
): Promise<NeglectedSession[]> {
  const found = await sql<{ client_id: string; epoch: number; superseded: boolean; stale: boolean }>`
    select s.client_id, s.epoch, k.session_epoch is distinct from s.epoch as superseded, q.stale
    from ${rows(
      's',
      { client_id: 'text', epoch: 'bigint' },
      sessions.map(({ clientId, epoch }) => ({ client_id: clientId, epoch })),
    )}
    left join lateral (select session_epoch from clients where id = s.client_id offset 0) k on true
    cross join lateral (
      select exists (
        select 1 from ${openOf(sql`s.client_id`)} e
        where e.status = 'queued' and e.epoch = s.epoch
          and e.queued_at < clock_timestamp() - make_interval(secs => ${STALE_SECONDS})
      ) as stale offset 0
    ) q
    where k.session_epoch is distinct from s.epoch or q.stale
      or exists (select 1 from ${pendingOf(sql`s.client_id`)} e where e.not_before is null)`.execute(db)
  return found.rows.map(({ client_id: clientId, epoch, superseded, stale }) => ({ clientId, epoch, superseded, stale }))
}

/** Claims of sessions that ended without a word (a killed node) and that no journal vouches for: oldest first. */
export async function findOrphanedClaims(db: Db, limit: number): Promise<(ExecutionKey & { epoch: number })[]> {
  const found = await sql<{ command_id: string; client_id: string; epoch: number }>`
    select e.command_id, e.client_id, e.epoch from executions e join clients k on k.id = e.client_id
    join commands c on c.id = e.command_id
    where e.status = 'queued' and e.epoch is distinct from k.session_epoch
      and c.delivery = 'at_most_once' and e.handovers -> -1 ->> 'journalId' is null
    order by e.command_id limit ${limit}`.execute(db)
  return found.rows.map((row) => ({ commandId: row.command_id, clientId: row.client_id, epoch: row.epoch }))
}
