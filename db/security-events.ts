import { sql } from 'kysely'
import type { Page, Paging } from '../schemas/paging.ts'
import type { ListSecurityEvents, SecurityEvent, SecurityEventKind } from '../schemas/security-events.ts'
import type { Db } from './connect.ts'
import { compact, page, rows } from './rows.ts'

/** What one node noticed of one kind and subject, how often, and how long ago, ms. */
export interface NoticedEvents {
  kind: SecurityEventKind
  severity: SecurityEvent['severity']
  subject: string
  principal: string | null
  clientId: string | null
  address: string | null
  detail: string
  count: number
  firstAgoMs: number
  lastAgoMs: number
}

const NOTICED = {
  kind: 'text',
  severity: 'text',
  subject: 'text',
  principal: 'text',
  client_id: 'text',
  address: 'text',
  detail: 'text',
  count: 'bigint',
  first: 'float8',
  last: 'float8',
}

/** Adds to what is known of each kind, subject and minute. */
export async function storeSecurityEvents(db: Db, events: NoticedEvents[]): Promise<void> {
  const input = events.map((event) => ({
    ...event,
    client_id: event.clientId,
    first: event.firstAgoMs,
    last: event.lastAgoMs,
  }))
  await sql`
    insert into security_events as s (kind, severity, subject, minute, principal, client_id, address, detail, count, first_at, last_at)
    select i.kind, i.severity, i.subject, date_trunc('minute', n.now - make_interval(secs => i.first / 1000)), i.principal,
      i.client_id, i.address, i.detail, i.count, n.now - make_interval(secs => i.first / 1000), n.now - make_interval(secs => i.last / 1000)
    from ${rows('i', NOTICED, input)}, (select clock_timestamp() as now) n
    order by i.kind, i.subject
    on conflict (kind, subject, minute) do update set count = s.count + excluded.count,
      last_at = greatest(s.last_at, excluded.last_at), detail = excluded.detail, address = excluded.address`.execute(db)
}

/** Severe events of one kind, subject and minute that the alerts were not told of, or not of all of them. */
export interface UntoldEvents {
  id: number
  kind: SecurityEventKind
  subject: string
  clientId: string | null
  address: string | null
  detail: string
  /** Since the alerts were told last. */
  more: number
  /** All of that minute: what the alerts know of once they are stored. */
  count: number
  /** Milliseconds. */
  lastAt: number
}

/** Marked in the statement that stores the alerts, so that each counts once. */
export async function readUntoldEvents(db: Db, limit: number): Promise<UntoldEvents[]> {
  const found = await sql<EventRow & { alerted: number }>`
    select * from security_events where severity = 'critical' and alerted < count
    order by kind, subject, minute limit ${limit}`.execute(db)
  return found.rows.map((row) => ({
    id: row.id,
    kind: row.kind as SecurityEventKind,
    subject: row.subject,
    clientId: row.client_id,
    address: row.address,
    detail: row.detail,
    more: row.count - row.alerted,
    count: row.count,
    lastAt: row.last_at.getTime(),
  }))
}

/** Newest first. */
export async function listSecurityEvents(
  db: Db,
  filter: ListSecurityEvents,
  paging: Paging,
): Promise<Page<SecurityEvent>> {
  let query = db.selectFrom('security_events').selectAll()
  if (filter.kind !== undefined) query = query.where('kind', '=', filter.kind)
  if (filter.severity !== undefined) query = query.where('severity', '=', filter.severity)
  if (filter.subject !== undefined) query = query.where('subject', '=', filter.subject)
  if (filter.since !== undefined) query = query.where('last_at', '>=', sql<Date>`${filter.since}::timestamptz`)
  if (filter.until !== undefined) query = query.where('first_at', '<', sql<Date>`${filter.until}::timestamptz`)
  if (paging.after !== undefined) query = query.where('id', '<', Number(paging.after))
  const found = await query
    .orderBy('id', 'desc')
    .limit(paging.limit + 1)
    .execute()
  return page(found, paging.limit, (row) => String(row.id), toEvent)
}

export async function forgetSecurityEvents(db: Db, olderThanSeconds: number, limit: number): Promise<void> {
  await sql`
    delete from security_events where id in (
      select id from security_events where first_at < clock_timestamp() - make_interval(secs => ${olderThanSeconds})
      order by first_at limit ${limit})`.execute(db)
}

interface EventRow {
  id: number
  kind: string
  severity: string
  subject: string
  principal: string | null
  client_id: string | null
  address: string | null
  detail: string
  count: number
  first_at: Date
  last_at: Date
}

const toEvent = (row: EventRow): SecurityEvent => ({
  id: String(row.id),
  kind: row.kind as SecurityEventKind,
  severity: row.severity as SecurityEvent['severity'],
  subject: row.subject,
  detail: row.detail,
  count: row.count,
  firstAt: row.first_at.toISOString(),
  lastAt: row.last_at.toISOString(),
  ...compact({ principal: row.principal, clientId: row.client_id, address: row.address }),
})
