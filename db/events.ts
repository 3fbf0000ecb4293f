import { sql } from 'kysely'
import type { Event, EventType } from '../schemas/events.ts'
import type { Json } from '../schemas/json.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Db } from './connect.ts'
import { compact, page, rows } from './rows.ts'

/** A command's life in order. `after` is the id of the last event seen. */
export async function listTimeline(
  db: Db,
  commandId: string,
  filter: { clientId?: string },
  paging: Paging,
): Promise<Page<Event>> {
  let query = db.selectFrom('events').selectAll().where('command_id', '=', commandId)
  if (filter.clientId !== undefined) query = query.where('client_id', '=', filter.clientId)
  if (paging.after !== undefined) query = query.where('id', '>', Number(paging.after))
  const found = await query
    .orderBy('id')
    .limit(paging.limit + 1)
    .execute()
  return page(
    found,
    paging.limit,
    (row) => String(row.id),
    (row) => toEvent({ ...row, type: row.type as EventType, data: row.data as Record<string, Json> }),
  )
}

interface EventRow {
  id: number
  type: EventType
  at: Date
  command_id: string | null
  client_id: string | null
  attempt: number | null
  data: Record<string, Json>
}

const toEvent = (row: EventRow): Event => ({
  id: String(row.id),
  type: row.type,
  at: row.at.toISOString(),
  data: row.data,
  ...compact({ commandId: row.command_id, clientId: row.client_id, attempt: row.attempt }),
})

/** A place in the feed: events of one transaction share `xid`, and become visible together. */
export interface FeedPosition {
  xid: string
  id: number
}

export const FEED_START: FeedPosition = { xid: '0', id: 0 }

export interface FeedFilter {
  types?: string[] | undefined
  zone?: string | undefined
  clientId?: string | undefined
  commandId?: string | undefined
}

/**
 * The next events after a position, in an order in which none is ever missed: by (xid, id), and only below the oldest
 * transaction that is still open, since transactions do not commit in the order of their ids.
 * `head` is how far the feed was read, whether or not the filter let anything through.
 */
export async function readFeed(
  db: Db,
  after: FeedPosition,
  filter: FeedFilter,
  limit: number,
): Promise<{ events: (Event & { position: FeedPosition })[]; head: FeedPosition | undefined }> {
  const conditions = [
    filter.types ? sql`e.type = any(${filter.types}::text[])` : undefined,
    filter.commandId !== undefined ? sql`e.command_id = ${filter.commandId}` : undefined,
    filter.clientId !== undefined ? sql`e.client_id = ${filter.clientId}` : undefined,
    filter.zone !== undefined
      ? sql`e.client_id in (select z.client_id from zone_members z where z.zone = ${filter.zone})`
      : undefined,
  ].filter((condition) => condition !== undefined)
  const passes = conditions.length > 0 ? sql.join(conditions, sql` and `) : sql`true`
  const found = await sql<{
    id: number
    xid: string
    type: EventType
    at: Date
    command_id: string | null
    client_id: string | null
    attempt: number | null
    data: Record<string, Json>
    passes: boolean | null
  }>`
    select e.id, e.xid::text as xid, e.type, e.at, e.command_id, e.client_id, e.attempt, e.data, ${passes} as passes
    from events e
    where (e.xid, e.id) > (${after.xid}::xid8, ${after.id}::bigint) and e.xid < pg_snapshot_xmin(pg_current_snapshot())
      ${filter.commandId !== undefined ? sql`and e.command_id = ${filter.commandId}` : sql``}
    order by e.xid, e.id limit ${limit}`.execute(db)
  const last = found.rows.at(-1)
  return {
    events: found.rows
      .filter((row) => row.passes)
      .map((row) => ({ ...toEvent(row), position: { xid: row.xid, id: row.id } })),
    head: last && { xid: last.xid, id: last.id },
  }
}

/** Where the feed ends now: a stream that resumes nothing starts here. */
export async function feedEnd(db: Db): Promise<FeedPosition> {
  const found = await sql<{ xid: string; id: number }>`
    select xid::text as xid, id from events where xid < pg_snapshot_xmin(pg_current_snapshot()) order by xid desc, id desc limit 1`.execute(
    db,
  )
  return found.rows[0] ?? FEED_START
}

/**
 * How long the feed is held back: the age of the oldest committed event that it may not show yet, because a transaction that
 * began earlier is still open somewhere on the PostgreSQL server; 0 if there is none.
 */
export async function feedLagSeconds(db: Db): Promise<number> {
  // Of what waits, the first in the order of the feed are also the oldest but for milliseconds: no need to read all of it.
  const found = await sql<{ seconds: number | null }>`
    select greatest(extract(epoch from clock_timestamp() - min(w.at)), 0)::float8 as seconds
    from (
      select at from events where xid >= pg_snapshot_xmin(pg_current_snapshot()) order by xid, id limit 100
    ) w`.execute(db)
  return found.rows[0]?.seconds ?? 0
}

/** What holds the feed back, as far as this role may see it. */
export interface FeedBlocker {
  who: string
  database: string | null
  since: string | null
}

export async function findFeedBlocker(db: Db): Promise<FeedBlocker | undefined> {
  const found = await sql<{ who: string; database: string | null; since: Date | null }>`
    select t.who, t.database, t.since
    from (
      select 'process ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '') as who, datname as database,
        xact_start as since, age(backend_xid) as age
      from pg_stat_activity where backend_xid is not null
      union all
      select 'prepared transaction ' || gid, database, prepared, age(transaction) from pg_prepared_xacts
    ) t
    order by t.age desc limit 1`.execute(db)
  const row = found.rows[0]
  return row && { ...row, since: row.since?.toISOString() ?? null }
}

/** Whether there are committed events of a command that the feed has not shown: an open transaction may hold them back. */
export async function hasEventsAfter(db: Db, commandId: string, after: FeedPosition): Promise<boolean> {
  const found = await sql`
    select 1 from events where command_id = ${commandId} and (xid, id) > (${after.xid}::xid8, ${after.id}::bigint) limit 1`.execute(
    db,
  )
  return found.rows.length > 0
}

/** Keeps events that clients sent, in this order; a repetition (same client, same id) is kept once. */
export async function insertClientEvents(
  db: Db,
  events: { clientId: string; type: string; id: string; body: Record<string, unknown> }[],
): Promise<void> {
  const input = events.map((event, ord) => ({
    ord,
    client_id: event.clientId,
    event_id: event.id,
    data: { type: event.type, event: event.body },
  }))
  await sql`
    insert into events (type, client_id, client_event_id, data)
    select 'client.event', client_id, event_id, data
    from ${rows('i', { ord: 'integer', client_id: 'text', event_id: 'text', data: 'jsonb' }, input)}
    order by ord
    on conflict (client_id, client_event_id) where client_event_id is not null do nothing`.execute(db)
}
