import { sql } from 'kysely'
import type { Execution, Status } from '../schemas/executions.ts'
import type { Json } from '../schemas/json.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import { openOf, pendingOf } from './client-work.ts'
import type { Db } from './connect.ts'
import { compact, page } from './rows.ts'

/** One page of a command's executions, by client id. */
export async function listExecutions(
  db: Db,
  commandId: string,
  filter: { status?: Status },
  paging: Paging,
): Promise<Page<Execution>> {
  let query = db.selectFrom('executions').selectAll().where('command_id', '=', commandId)
  if (filter.status) query = query.where('status', '=', filter.status)
  if (paging.after !== undefined) query = query.where('client_id', '>', paging.after)
  const found = await query
    .orderBy('client_id')
    .limit(paging.limit + 1)
    .execute()
  return page(
    found,
    paging.limit,
    (row) => row.client_id,
    (row) => ({
      commandId: row.command_id,
      clientId: row.client_id,
      status: row.status as Status,
      attempt: row.attempt,
      ...compact({
        progress: row.progress as Execution['progress'],
        result: row.result as Json | null,
        error: row.error as Execution['error'],
        queuedAt: row.queued_at?.toISOString(),
        deliveredAt: row.delivered_at?.toISOString(),
        startedAt: row.started_at?.toISOString(),
        completedAt: row.completed_at?.toISOString(),
        cancelRequestedAt: row.cancel_requested_at?.toISOString(),
      }),
    }),
  )
}

export interface UnsettledFacts {
  clientId: string
  status: Status
  attempt: number
  priority: number
  disabled: boolean
  online: boolean
  /** The node that has its session. */
  node: { id: string; name: string } | null
  presenceSince: string
  notBefore: string | null
  deadline: string | null
  cancelRequestedAt: string | null
  maxRetries: number
  maxInFlight: number
  inFlight: number
  ahead: number
  error: { code: string; message: string } | null
  queuedAt: string | null
}

/** What there is to know about each execution of a command that has not ended, for `explain`. */
export async function loadUnsettledFacts(db: Db, commandId: string, limit: number): Promise<UnsettledFacts[]> {
  const found = await sql<{
    client_id: string
    status: Status
    attempt: number
    priority: number
    disabled: boolean
    online: boolean
    node_id: string | null
    node_name: string | null
    presence_since: Date
    not_before: Date | null
    deadline: Date | null
    cancel_requested_at: Date | null
    max_retries: number
    max_in_flight: number
    in_flight: number
    ahead: number
    error: { code: string; message: string } | null
    queued_at: Date | null
  }>`
    select e.client_id, e.status, e.attempt, e.priority, k.disabled, k.session_epoch is not null as online, n.id as node_id, n.name as node_name, k.presence_since,
      e.not_before, e.deadline, e.cancel_requested_at, c.max_retries, k.max_in_flight, e.error, e.queued_at,
      (select count(*)::integer from ${openOf(sql`e.client_id`)} o) as in_flight,
      (select count(*)::integer from ${pendingOf(sql`e.client_id`)} o where o.not_before is null
        and (o.priority > e.priority or (o.priority = e.priority and o.command_id < e.command_id))) as ahead
    from executions e join commands c on c.id = e.command_id join clients k on k.id = e.client_id
    left join nodes n on n.id = k.session_node
    where e.command_id = ${commandId} and e.status in ('pending', 'queued', 'delivered', 'running', 'outcome_unknown')
    order by e.client_id limit ${limit}`.execute(db)
  return found.rows.map((row) => ({
    clientId: row.client_id,
    status: row.status,
    attempt: row.attempt,
    priority: row.priority,
    disabled: row.disabled,
    online: row.online,
    node: row.node_id === null ? null : { id: row.node_id, name: row.node_name ?? row.node_id },
    presenceSince: row.presence_since.toISOString(),
    notBefore: row.not_before?.toISOString() ?? null,
    deadline: row.deadline?.toISOString() ?? null,
    cancelRequestedAt: row.cancel_requested_at?.toISOString() ?? null,
    maxRetries: row.max_retries,
    maxInFlight: row.max_in_flight,
    inFlight: row.in_flight,
    ahead: row.ahead,
    error: row.error,
    queuedAt: row.queued_at?.toISOString() ?? null,
  }))
}
