import { sql } from 'kysely'
import type { AlertKind } from '../schemas/alerts.ts'
import type { Target } from '../schemas/commands.ts'
import type { EventType } from '../schemas/events.ts'
import type { Db } from './connect.ts'
import type { FeedPosition } from './events.ts'

// These statements are planned when a server is young and its tables are empty, and run when they are not. So what could be
// planned as a comparison of all with all is written as one look-up for each: `lateral (… limit 1)`, or a scalar subquery.

/** An event that opens, changes or ends an alert. */
export interface TellingEvent {
  type: EventType
  /** Milliseconds. */
  at: number
  clientId: string
  commandId: string | null
  error: { code: string; message: string } | null
  /** There is an open alert about unknown outcomes of its command. */
  doubted: boolean
}

const OPENING: EventType[] = ['execution.outcome_unknown', 'execution.failed', 'execution.rejected']
/** What an execution of unknown outcome may become, apart from the above. */
const ENDING_DOUBT: EventType[] = [
  'execution.completed',
  'execution.cancelled',
  'execution.expired',
  'execution.retried',
]

/**
 * One page of the feed behind `after`: `limit` events are read where they are, and only those that tell something are answered.
 * `refused`: clients that were turned away since; their logins are told too. `head` is undefined if there was nothing new.
 */
export async function readTellingEvents(
  db: Db,
  after: FeedPosition,
  limit: number,
  refused: string[],
): Promise<{ events: TellingEvent[]; head: FeedPosition | undefined; full: boolean }> {
  const found = await sql<{
    head_xid: string
    head_id: number
    size: number
    type: EventType | null
    at: Date
    client_id: string
    command_id: string | null
    code: string | null
    message: string | null
    doubted: boolean
  }>`
    with page as materialized (
      select e.xid, e.id, e.type, e.at, e.client_id, e.command_id,
        case when e.type = any(${OPENING}::text[]) then e.data -> 'error' end as error
      from events e
      where (e.xid, e.id) > (${after.xid}::xid8, ${after.id}::bigint) and e.xid < pg_snapshot_xmin(pg_current_snapshot())
      order by e.xid, e.id limit ${limit}
    ),
    head as (select xid, id from page order by xid desc, id desc limit 1),
    -- Mostly there is none, and nothing to be looked up for what is completed.
    doubt as materialized (select exists (select 1 from alerts where kind = 'outcome_unknown' and resolved_at is null) as there_is),
    judged as (
      select p.*, (select there_is from doubt) and p.command_id is not null and exists (
          select 1 from alerts a where a.kind = 'outcome_unknown' and a.subject = p.command_id::text and a.resolved_at is null
        ) as doubted
      from page p where p.type = any(${[...OPENING, ...ENDING_DOUBT, 'client.online']}::text[])
    ),
    telling as (
      select j.* from judged j
      where j.type = any(${OPENING}::text[]) or j.doubted
        or (j.type = 'client.online' and (j.client_id = any(${refused}::text[]) or exists (
          select 1 from alerts a where a.kind = 'client_refused' and a.subject = j.client_id and a.resolved_at is null
            and a.details ->> 'cause' = 'login')))
    )
    select h.xid::text as head_xid, h.id as head_id, (select count(*)::integer from page) as size,
      t.type, t.at, t.client_id, t.command_id, t.error ->> 'code' as code, left(t.error ->> 'message', 500) as message, t.doubted
    from head h left join telling t on true
    order by t.xid, t.id`.execute(db)
  const [first] = found.rows
  return {
    events: found.rows.flatMap(({ type, ...row }) =>
      type === null
        ? []
        : {
            type,
            at: row.at.getTime(),
            clientId: row.client_id,
            commandId: row.command_id,
            error: row.code === null ? null : { code: row.code, message: row.message ?? '' },
            doubted: row.doubted,
          },
    ),
    head: first && { xid: first.head_xid, id: first.head_id },
    full: (first?.size ?? 0) >= limit,
  }
}

/** How many outcomes of a command nobody can tell. */
export interface Doubt {
  commandId: string
  action: string
  target: Target
  total: number
  unknown: number
  /** The first few of them. */
  clientIds: string[]
}

/** Of these commands, those with outcomes that are unknown now. */
export async function findDoubts(db: Db, commandIds: string[], shown: number): Promise<Doubt[]> {
  if (commandIds.length === 0) return []
  const found = await sql<Doubt>`
    with unknown as materialized (
      select e.command_id, count(*)::integer as n, (array_agg(e.client_id order by e.client_id))[1:${shown}::integer] as client_ids
      from executions e where e.command_id = any(${commandIds}::uuid[]) and e.status = 'outcome_unknown' group by e.command_id
    )
    select c.id as "commandId", c.action, c.target, c.total, u.n as unknown, u.client_ids as "clientIds"
    from unknown u cross join lateral (select * from commands c where c.id = u.command_id limit 1) c`.execute(db)
  return found.rows
}

/** Commands with an open alert that were removed with their history: nothing will ever be said of them. */
export async function findForgottenDoubts(db: Db, limit: number): Promise<string[]> {
  const found = await sql<{ command_id: string }>`
    select a.command_id from alerts a
    where a.kind = 'outcome_unknown' and a.resolved_at is null
      and (select e.command_id from executions e where e.command_id = a.command_id limit 1) is null
    limit ${limit}`.execute(db)
  return found.rows.map((row) => row.command_id)
}

/** Alerts of a kind that somebody has acknowledged and that were last seen longer ago; `lastAt`: ms. */
export async function findQuietAlerts(
  db: Db,
  kind: AlertKind,
  seconds: number,
  limit: number,
): Promise<{ subject: string; lastAt: number }[]> {
  const found = await sql<{ subject: string; last_at: Date }>`
    select subject, last_at from alerts
    where kind = ${kind} and resolved_at is null and acknowledged_at is not null
      and last_at < clock_timestamp() - make_interval(secs => ${seconds})
    limit ${limit}`.execute(db)
  return found.rows.map(({ subject, last_at }) => ({ subject, lastAt: last_at.getTime() }))
}

/** A refused name that is a client's, and since when its present session is open, ms. */
export interface KnownClient {
  id: string
  onlineSince: number | null
}

export async function findKnownClients(db: Db, ids: string[]): Promise<Map<string, KnownClient>> {
  if (ids.length === 0) return new Map()
  const found = await sql<{ id: string; online: boolean; presence_since: Date }>`
    select id, session_epoch is not null as online, presence_since from clients
    where id = any(${ids}::text[]) and deleted_at is null`.execute(db)
  return new Map(
    found.rows.map(({ id, online, presence_since }) => [
      id,
      { id, onlineSince: online ? presence_since.getTime() : null },
    ]),
  )
}
