import { sql } from 'kysely'
import type { Command, Exclusion, ListCommands, Target, UpdateCommand } from '../schemas/commands.ts'
import type { Delivery, ExecutionError, Status } from '../schemas/executions.ts'
import type { Json } from '../schemas/json.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Db } from './connect.ts'
import { compact, page } from './rows.ts'

/** Changes priority and expiry of what is still pending; answers how many executions that were, undefined if there is no such command. */
export async function updatePending(
  db: Db,
  id: string,
  change: UpdateCommand,
  by: string,
): Promise<number | undefined> {
  const found = await sql<{ known: boolean; changed: number }>`
    with changed as (
      update executions set version = version + 1,
        priority = coalesce(${change.priority ?? null}::smallint, priority),
        expires_at = coalesce(${change.expiresAt ?? null}::timestamptz, expires_at)
      where command_id = ${id} and status = 'pending' returning client_id
    ),
    command as (
      update commands set
        priority = coalesce(${change.priority ?? null}::smallint, priority),
        expires_at = coalesce(${change.expiresAt ?? null}::timestamptz, expires_at)
      where id = ${id} and exists (select 1 from changed) returning id
    ),
    logged as (
      insert into events (type, command_id, data) select 'command.updated', id, ${JSON.stringify({ ...change, by })}::jsonb from command
    )
    select exists (select 1 from commands where id = ${id}) as known, (select count(*)::integer from changed) as changed`.execute(
    db,
  )
  return found.rows[0]?.known ? found.rows[0].changed : undefined
}

interface CommandRow {
  id: string
  target: Target
  action: string
  payload: Json | null
  priority: number
  delivery: Delivery
  start_timeout_seconds: number
  timeout_seconds: number
  max_retries: number
  total: number
  excluded: Exclusion[]
  created_by: string
  created_at: Date
  not_before: Date | null
  expires_at: Date
  counts: Partial<Record<Status, number>>
  started_at: Date | null
  completed_at: Date | null
  attempt: number | null
  result: Json | null
  error: ExecutionError | null
}

/** Facts of a command as stored; the status of a group is derived from the counts by control. */
export type CommandFacts = Omit<Command, 'status'>

/** Per command: how many executions in each status, the first start and, once all are settled, the last end. */
const FACTS = sql`
  c.id, c.target, c.action, c.payload, c.priority, c.delivery, c.start_timeout_seconds, c.timeout_seconds, c.max_retries,
  c.total, c.excluded, c.created_by, c.created_at, c.not_before, c.expires_at, x.counts, x.started_at, x.completed_at,
  one.attempt, one.result, one.error`
const FROM = sql`
  cross join lateral (
    select coalesce(jsonb_object_agg(s.status, s.n), '{}') as counts, min(s.started_at) as started_at,
      case when bool_and(s.status in ('completed', 'failed', 'rejected', 'cancelled', 'expired', 'outcome_unknown'))
        then max(s.completed_at) end as completed_at
    from (
      select e.status, count(*)::integer as n, min(e.started_at) as started_at, max(e.completed_at) as completed_at
      from executions e where e.command_id = c.id group by e.status
    ) s
  ) x
  left join lateral (
    select e.attempt, e.result, e.error from executions e where c.total = 1 and e.command_id = c.id limit 1
  ) one on true`

export async function findCommand(db: Db, id: string): Promise<CommandFacts | undefined> {
  const found = await sql<CommandRow>`select ${FACTS} from commands c ${FROM} where c.id = ${id}`.execute(db)
  return found.rows[0] && toFacts(found.rows[0])
}

/** One page of commands, newest first. */
export async function listCommands(db: Db, filter: ListCommands, paging: Paging): Promise<Page<CommandFacts>> {
  const conditions = [
    paging.after !== undefined ? sql`c.id < ${paging.after}` : undefined,
    filter.action !== undefined ? sql`c.action = ${filter.action}` : undefined,
    filter.createdAfter !== undefined ? sql`c.created_at >= ${filter.createdAfter}::timestamptz` : undefined,
    filter.createdBefore !== undefined ? sql`c.created_at < ${filter.createdBefore}::timestamptz` : undefined,
    filter.clientId !== undefined
      ? sql`exists (select 1 from executions e where e.command_id = c.id and e.client_id = ${filter.clientId})`
      : undefined,
    filter.zone !== undefined ? sql`c.target ->> 'kind' = 'zone' and c.target ->> 'zone' = ${filter.zone}` : undefined,
    filter.status !== undefined
      ? sql`exists (select 1 from executions e where e.command_id = c.id and e.status = ${filter.status})`
      : undefined,
  ].filter((condition) => condition !== undefined)
  const where = conditions.length > 0 ? sql`where ${sql.join(conditions, sql` and `)}` : sql``
  const found = await sql<CommandRow>`
    select ${FACTS} from (select * from commands c ${where} order by c.id desc limit ${paging.limit + 1}) c ${FROM}
    order by c.id desc`.execute(db)
  return page(found.rows, paging.limit, (row) => row.id, toFacts)
}

function toFacts(row: CommandRow): CommandFacts {
  return {
    id: row.id,
    target: row.target,
    action: row.action,
    priority: row.priority,
    delivery: row.delivery,
    counts: row.counts,
    total: row.total,
    excluded: row.excluded,
    createdBy: row.created_by,
    createdAt: row.created_at.toISOString(),
    expiresAt: row.expires_at.toISOString(),
    startTimeoutSeconds: row.start_timeout_seconds,
    timeoutSeconds: row.timeout_seconds,
    maxRetries: row.max_retries,
    ...compact({
      payload: row.payload,
      attempt: row.attempt,
      result: row.result,
      error: row.error,
      notBefore: row.not_before?.toISOString(),
      startedAt: row.started_at?.toISOString(),
      completedAt: row.completed_at?.toISOString(),
    }),
  }
}
