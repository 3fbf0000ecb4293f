import { type RawBuilder, sql } from 'kysely'
import type { Alert, AlertKind, ListAlerts, Severity } from '../schemas/alerts.ts'
import type { Json } from '../schemas/json.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Audited } from './audit.ts'
import type { Db } from './connect.ts'
import { compact, page } from './rows.ts'

interface AlertRow {
  id: string
  kind: AlertKind
  subject: string
  client_id: string | null
  command_id: string | null
  severity: Severity
  message: string
  details: Record<string, Json>
  count: number
  opened_at: Date
  last_at: Date
  acknowledged_at: Date | null
  acknowledged_by: string | null
  note: string | null
  resolved_at: Date | null
  resolution: string | null
}

const IN_STATE: Record<NonNullable<ListAlerts['state']> | 'unresolved', RawBuilder<unknown>> = {
  open: sql`a.resolved_at is null and a.acknowledged_at is null`,
  acknowledged: sql`a.resolved_at is null and a.acknowledged_at is not null`,
  resolved: sql`a.resolved_at is not null`,
  unresolved: sql`a.resolved_at is null`,
  all: sql`true`,
}

/** One page of alerts, newest first. */
export async function listAlerts(db: Db, filter: ListAlerts, paging: Paging): Promise<Page<Alert>> {
  const conditions = [
    IN_STATE[filter.state ?? 'unresolved'],
    filter.kind !== undefined ? sql`a.kind = ${filter.kind}` : undefined,
    filter.clientId !== undefined ? sql`a.client_id = ${filter.clientId}` : undefined,
    filter.commandId !== undefined ? sql`a.command_id = ${filter.commandId}` : undefined,
    paging.after !== undefined ? sql`a.id < ${paging.after}` : undefined,
  ].filter((condition) => condition !== undefined)
  const found = await sql<AlertRow>`
    select a.* from alerts a where ${sql.join(conditions, sql` and `)} order by a.id desc limit ${paging.limit + 1}`.execute(
    db,
  )
  return page(found.rows, paging.limit, (row) => row.id, toAlert)
}

/** What is not resolved, by kind: from the index of just that, however long the history is. */
export async function countOpenAlerts(db: Db): Promise<Map<AlertKind, number>> {
  const found = await sql<{ kind: AlertKind; n: number }>`
    select kind, count(*) as n from alerts where resolved_at is null group by kind`.execute(db)
  return new Map(found.rows.map(({ kind, n }) => [kind, n]))
}

export async function findAlert(db: Db, id: string): Promise<Alert | undefined> {
  const found = await sql<AlertRow>`select * from alerts where id = ${id}`.execute(db)
  return found.rows[0] && toAlert(found.rows[0])
}

/** Notes that somebody has seen it; the first who did stays. An alert of an `ending` kind is over with that. */
export async function acknowledgeAlert(
  db: Audited,
  id: string,
  by: string,
  note: string | null,
  ending: AlertKind[],
): Promise<void> {
  await sql`
    with seen as (
      update alerts set acknowledged_at = clock_timestamp(), acknowledged_by = ${by}, note = ${note},
        resolved_at = case when kind = any(${ending}::text[]) then clock_timestamp() else resolved_at end,
        resolution = case when kind = any(${ending}::text[]) then 'acknowledged' else resolution end
      where id = ${id} and acknowledged_at is null
      returning *
    )
    insert into events (type, command_id, client_id, data)
    select e.type, s.command_id, s.client_id, jsonb_strip_nulls(e.data || jsonb_build_object('alertId', s.id, 'kind', s.kind))
    from seen s cross join lateral (values
      (1, 'alert.acknowledged', true, jsonb_build_object('by', ${by}::text, 'note', ${note}::text)),
      (2, 'alert.resolved', s.kind = any(${ending}::text[]), jsonb_build_object('resolution', s.resolution))
    ) as e(ord, type, happens, data)
    where e.happens order by e.ord`.execute(db)
}

function toAlert(row: AlertRow): Alert {
  return {
    id: row.id,
    kind: row.kind,
    severity: row.severity,
    state: row.resolved_at ? 'resolved' : row.acknowledged_at ? 'acknowledged' : 'open',
    subject: row.subject,
    message: row.message,
    details: row.details,
    count: row.count,
    openedAt: row.opened_at.toISOString(),
    lastAt: row.last_at.toISOString(),
    ...compact({
      clientId: row.client_id,
      commandId: row.command_id,
      acknowledgedAt: row.acknowledged_at?.toISOString(),
      acknowledgedBy: row.acknowledged_by,
      note: row.note,
      resolvedAt: row.resolved_at?.toISOString(),
      resolution: row.resolution,
    }),
  }
}
