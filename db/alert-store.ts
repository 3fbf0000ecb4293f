import { sql } from 'kysely'
import type { AlertKind, Severity } from '../schemas/alerts.ts'
import type { Json } from '../schemas/json.ts'
import type { Db } from './connect.ts'
import type { FeedPosition } from './events.ts'
import { rows } from './rows.ts'

/** Where the follower stands. Every change of alerts raises `version`, so that of two followers one has to look again. */
export interface AlertCursor extends FeedPosition {
  version: number
  /** PostgreSQL's clock, ms. */
  now: number
}

export async function readAlertCursor(db: Db): Promise<AlertCursor> {
  const found = await sql<{ xid: string; id: number; version: number; now: Date }>`
    select xid::text as xid, id, version, clock_timestamp() as now from feed_cursors where name = 'alerts'`.execute(db)
  const row = found.rows[0]
  if (!row) throw new Error('the cursor of the alerts is missing in feed_cursors')
  return { xid: row.xid, id: row.id, version: row.version, now: row.now.getTime() }
}

/** An alert that is not resolved. */
export interface OpenAlert {
  id: string
  kind: AlertKind
  subject: string
  clientId: string | null
  commandId: string | null
  severity: Severity
  message: string
  details: Record<string, Json>
  count: number
  /** Milliseconds. */
  lastAt: number
}

export async function loadOpenAlerts(
  db: Db,
  keys: { kind: AlertKind; subject: string }[],
): Promise<Map<string, OpenAlert>> {
  if (keys.length === 0) return new Map()
  const found = await sql<Omit<OpenAlert, 'lastAt'> & { last_at: Date }>`
    select a.id, a.kind, a.subject, a.client_id as "clientId", a.command_id as "commandId", a.severity, a.message, a.details,
      a.count, a.last_at
    from (select distinct kind, subject from ${rows(
      'k',
      { kind: 'text', subject: 'text' },
      keys.map(({ kind, subject }) => ({ kind, subject })),
    )}) k
    cross join lateral (
      select * from alerts o where o.kind = k.kind and o.subject = k.subject and o.resolved_at is null limit 1
    ) a`.execute(db)
  return new Map(
    found.rows.map(({ last_at, ...alert }) => [alertKey(alert), { ...alert, lastAt: last_at.getTime() }] as const),
  )
}

export const alertKey = ({ kind, subject }: { kind: AlertKind; subject: string }): string => `${kind} ${subject}`

/** An alert as it is to be from now on. */
export interface AlertChange {
  alert: OpenAlert
  isNew: boolean
  /** What ended it, or null while it goes on. */
  resolution: string | null
}

const ALERT = {
  is_new: 'boolean',
  id: 'uuid',
  kind: 'text',
  subject: 'text',
  client_id: 'text',
  command_id: 'uuid',
  severity: 'text',
  message: 'text',
  details: 'jsonb',
  count: 'integer',
  last_at: 'timestamptz',
  resolution: 'text',
}

/**
 * Stores alerts, their events, how far the feed was read and which security events were told, in one statement: all of it, or
 * nothing if another follower was faster or somebody ended one of these alerts meanwhile. Answers which.
 */
export async function storeAlerts(
  db: Db,
  cursor: AlertCursor,
  head: FeedPosition,
  told: { id: number; count: number }[],
  changes: AlertChange[],
): Promise<boolean> {
  const input = changes.map(({ alert, isNew, resolution }) => ({
    is_new: isNew,
    id: alert.id,
    kind: alert.kind,
    subject: alert.subject,
    client_id: alert.clientId,
    command_id: alert.commandId,
    severity: alert.severity,
    message: alert.message,
    details: alert.details,
    count: alert.count,
    last_at: new Date(alert.lastAt).toISOString(),
    resolution,
  }))
  const events = changes.filter(({ isNew, resolution }) => isNew || resolution !== null).map(toEvent)
  const known = changes.filter(({ isNew }) => !isNew).map(({ alert }) => alert.id)
  // What is told and the alerts are locked before the cursor, and nothing after it: followers and whoever acknowledges never wait
  // for each other. Security events are locked in the order in which they are stored.
  const stored = await sql`
    with input as (
      select * from ${rows('i', ALERT, input)}
    ),
    told as materialized (
      select s.id, t.count from ${rows(
        't',
        { id: 'bigint', count: 'bigint' },
        told.map(({ id, count }) => ({ id, count })),
      )}
      join security_events s on s.id = t.id order by s.kind, s.subject, s.minute for update of s
    ),
    locked as materialized (
      select a.id from alerts a where a.id = any(${known}::uuid[]) and a.resolved_at is null
      order by a.id for update
    ),
    moved as (
      update feed_cursors set xid = ${head.xid}::xid8, id = ${head.id}::bigint, version = version + 1
      where name = 'alerts' and version = ${cursor.version} and (select count(*) from told) = ${told.length}::bigint
        and (select count(*) from locked) = ${known.length}::bigint
      returning version
    ),
    marked as (
      update security_events s set alerted = t.count from told t cross join moved where s.id = t.id
    ),
    changed as (
      update alerts a set message = i.message, details = i.details, count = i.count, last_at = i.last_at,
        resolution = i.resolution, resolved_at = case when i.resolution is not null then clock_timestamp() end
      from input i cross join moved where a.id = i.id and not i.is_new
    ),
    opened as (
      insert into alerts (id, kind, subject, client_id, command_id, severity, message, details, count, last_at)
      select i.id, i.kind, i.subject, i.client_id, i.command_id, i.severity, i.message, i.details, i.count, i.last_at
      from input i cross join moved where i.is_new
    ),
    logged as (
      insert into events (type, command_id, client_id, data)
      select v.type, v.command_id, v.client_id, v.data
      from moved cross join rows from (json_to_recordset(${JSON.stringify(events)}::json)
        as (type text, command_id uuid, client_id text, data jsonb)) with ordinality as v(type, command_id, client_id, data, ord)
      order by v.ord
    )
    select version from moved`.execute(db)
  return stored.rows.length > 0
}

function toEvent({ alert, resolution }: AlertChange): Record<string, unknown> {
  const about = { alertId: alert.id, kind: alert.kind }
  const data =
    resolution === null
      ? { ...about, severity: alert.severity, message: alert.message, count: alert.count }
      : { ...about, resolution }
  const type = resolution === null ? 'alert.opened' : 'alert.resolved'
  return { type, command_id: alert.commandId, client_id: alert.clientId, data }
}
