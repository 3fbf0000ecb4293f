import { sql } from 'kysely'
import type { Db } from './connect.ts'
import type { FeedPosition } from './events.ts'

/** Everything settled for longer than this may go. */
const cutoff = (days: number) => sql`(clock_timestamp() - make_interval(days => ${days}::integer))`

/** Ids of commands and alerts are UUIDs of version 7, which are in the order of time: what is old is found without an index for it. */
export const BEFORE_ALL = '00000000-0000-0000-0000-000000000000'
const cutoffId = (days: number) =>
  sql`(select (lpad(to_hex(floor(date_part('epoch', ${cutoff(days)}) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid)`

/** Not `outcome_unknown`: that waits for a principal's word. */
const TERMINAL = sql`('completed', 'failed', 'rejected', 'cancelled', 'expired')`

export interface OldCommand {
  id: string
  executions: number
  /** All its executions ended, the last one longer ago than `days`. */
  removable: boolean
}

/** The next commands behind `after` that were created more than `days` ago, oldest first, whether or not they may go. */
export async function findOldCommands(db: Db, after: string, days: number, limit: number): Promise<OldCommand[]> {
  // As subqueries, the cut-offs are worked out once, and the scan of the primary key ends at the second.
  const found = await sql<{ id: string; total: number; removable: boolean }>`
    select c.id, c.total, not exists (
        select 1 from executions e
        where e.command_id = c.id and (e.status in ${TERMINAL} and e.completed_at < (select ${cutoff(days)})) is not true
      ) as removable
    from commands c
    where c.id > ${after}::uuid and c.id < ${cutoffId(days)}
    order by c.id limit ${limit}`.execute(db)
  return found.rows.map(({ id, total, removable }) => ({ id, executions: total, removable }))
}

/**
 * Row by row through the index and by its place in the table: there is no plan that would rather read the whole table, even
 * when the statistics are out of date, as after a backlog has just become old. The places hold: events never change, and the
 * executions are locked.
 */
const each = (commandIds: string[]) => sql`unnest(${commandIds}::uuid[]) as c(id)`

export interface Removed {
  commandIds: string[]
  executions: number
  events: number
  /** So many events that only a part of them was removed, and nothing else yet. */
  more: boolean
}

/**
 * Removes these commands with all that belongs to them, but for those that somebody is at or that are no longer removable.
 * A short transaction that waits for nobody: the ledger either has a row first, and the command is left alone, or finds none.
 * The deleting statements come after the one that took the locks, so that they see what was committed until then. At most
 * `maxEvents` events are removed at once. The executions of one command are not divided: what PostgreSQL could store in one
 * statement it can remove in one.
 */
export async function deleteCommands(db: Db, commandIds: string[], days: number, maxEvents: number): Promise<Removed> {
  return await db.transaction().execute(async (transaction) => {
    const locked = await sql<{ id: string }>`
      with command as materialized (
        select id, total from commands where id = any(${commandIds}::uuid[]) for update skip locked
      ),
      execution as materialized (
        select c.id, c.total from command c cross join lateral (
          select 1 from executions e
          where e.command_id = c.id and e.status in ${TERMINAL} and e.completed_at < (select ${cutoff(days)})
          for update skip locked
        ) e
      )
      select id from execution group by id, total having count(*) = total`.execute(transaction)
    const ids = locked.rows.map(({ id }) => id)
    if (ids.length === 0) return { commandIds: [], executions: 0, events: 0, more: false }
    const { numAffectedRows } = await sql`
      delete from events where ctid = any(array(
        select e.ctid from ${each(ids)} cross join lateral (select ctid from events where command_id = c.id offset 0) e
        limit ${maxEvents}))`.execute(transaction)
    const events = Number(numAffectedRows)
    if (events === maxEvents) return { commandIds: [], executions: 0, events, more: true }
    const { rows } = await sql<{ executions: number }>`
      with execution as (
        delete from executions where ctid = any(array(
          select e.ctid from ${each(ids)} cross join lateral (select ctid from executions where command_id = c.id offset 0) e))
        returning 1
      ),
      command as (delete from commands where id = any(${ids}::uuid[]))
      select count(*)::integer as executions from execution`.execute(transaction)
    return { commandIds: ids, executions: rows[0]?.executions ?? 0, events, more: false }
  })
}

/**
 * Of the next `limit` events behind `after`, in the order of the feed, removes those that belong to no command, or to one that was
 * removed before them (an alert may be acknowledged later), and are older than `days`. Answers the last event that is that old, of a
 * command or not; undefined at the end of what is old.
 */
export async function deleteOldEvents(
  db: Db,
  after: FeedPosition,
  days: number,
  limit: number,
): Promise<{ last: FeedPosition | undefined; events: number }> {
  const found = await sql<{ xid: string | null; id: number | null; events: number }>`
    with next as materialized (
      select xid, id, ctid as place, at, command_id from events
      where (xid, id) > (${after.xid}::xid8, ${after.id}::bigint) order by xid, id limit ${limit}
    ),
    old as materialized (select xid, id, place, command_id from next where at < (select ${cutoff(days)})),
    last as (select xid, id from old order by xid desc, id desc limit 1),
    gone as (
      delete from events where ctid = any(array(
        select o.place from old o where not exists (select 1 from commands c where c.id = o.command_id)))
      returning 1
    )
    select (select xid::text from last) as xid, (select id from last) as id, (select count(*)::integer from gone) as events`.execute(
    db,
  )
  const { xid = null, id = null, events = 0 } = found.rows[0] ?? {}
  return { last: xid === null || id === null ? undefined : { xid, id }, events }
}

/**
 * Of the next `limit` alerts behind `after` that were opened more than `days` ago, removes those that were resolved that long ago.
 * Answers the last one that was looked at; undefined at the end of what is old.
 */
export async function deleteOldAlerts(
  db: Db,
  after: string,
  days: number,
  limit: number,
): Promise<{ last: string | undefined; alerts: number }> {
  const found = await sql<{ last: string | null; looked: number; alerts: number }>`
    with next as materialized (
      select id, resolved_at from alerts where id > ${after}::uuid and id < ${cutoffId(days)} order by id limit ${limit}
    ),
    gone as (
      delete from alerts where id = any(array(select id from next where resolved_at < (select ${cutoff(days)}))) returning 1
    )
    select (select id from next order by id desc limit 1) as last, (select count(*)::integer from next) as looked,
      (select count(*)::integer from gone) as alerts`.execute(db)
  const { last = null, looked = 0, alerts = 0 } = found.rows[0] ?? {}
  return { last: looked === limit && last !== null ? last : undefined, alerts }
}

/** Removes the oldest audit rows that are older than `days`; answers how many. */
export async function deleteOldAudit(db: Db, days: number, limit: number): Promise<number> {
  const { numAffectedRows } = await sql`
    delete from audit where id = any(array(
      select id from audit where at < (select ${cutoff(days)}) order by at limit ${limit}))`.execute(db)
  return Number(numAffectedRows)
}

/** Removes the enrolments that expired longer ago; answers how many. The clients that came by them stay. */
export async function deleteOldEnrolments(db: Db, days: number, limit: number): Promise<number> {
  const { numAffectedRows } = await sql`
    delete from enrolments where id = any(array(
      select id from enrolments where expires_at < (select ${cutoff(days)}) order by expires_at limit ${limit}))`.execute(
    db,
  )
  return Number(numAffectedRows)
}
