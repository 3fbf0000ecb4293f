import { sql } from 'kysely'
import type { Command, ListCommands, Target } from '../schemas/commands.ts'
import type { Delivery, ExecutionError, Status } from '../schemas/executions.ts'
import type { Json } from '../schemas/json.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Db } from './connect.ts'
import { compact, page, rows } from './rows.ts'

/** A command for one client, its id made by the caller. */
export interface NewCommand {
  id: string
  principalId: string
  createdBy: string
  idempotencyKey: string | null
  /** SHA-256 of the request, hex. */
  requestHash: string
  clientId: string
  action: string
  payload: Json | undefined
  priority: number
  delivery: Delivery
  startTimeoutSeconds: number
  timeoutSeconds: number
  maxRetries: number
  notBefore: string | null
  /** Either an instant or a time to live. */
  expiresAt: string | null
  ttlSeconds: number
}

export type Refusal = 'unknown_client' | 'disabled' | 'past_expiry' | 'never_due' | 'queue_full' | 'key_in_use'

export type InsertedCommand =
  | { id: string; refusal: Refusal }
  | { id: string; refusal: null; createdAt: string; notBefore: string | null; expiresAt: string }

/**
 * Judges and stores a batch of commands with their executions, events and idempotency keys in one statement.
 * Each row stands for itself: a refused one stores nothing. A twin of a key that is being committed elsewhere waits for it.
 */
export async function insertCommands(
  db: Db,
  commands: NewCommand[],
  maxPendingPerClient: number,
): Promise<InsertedCommand[]> {
  const input = commands.map((command, ord) => ({
    ord,
    id: command.id,
    principal_id: command.principalId,
    created_by: command.createdBy,
    key: command.idempotencyKey,
    request_hash: `\\x${command.requestHash}`,
    client_id: command.clientId,
    action: command.action,
    payload: command.payload,
    priority: command.priority,
    delivery: command.delivery,
    start_timeout_seconds: command.startTimeoutSeconds,
    timeout_seconds: command.timeoutSeconds,
    max_retries: command.maxRetries,
    not_before: command.notBefore,
    expires_at: command.expiresAt,
    ttl_seconds: command.ttlSeconds,
  }))
  const found = await sql<{
    id: string
    refusal: Refusal | null
    created_at: Date
    not_before: Date | null
    expires_at: Date
  }>`
    with input as materialized (
      select i.*, date_trunc('milliseconds', n.now) as created_at,
        date_trunc('milliseconds', coalesce(i.expires_at, n.now + make_interval(secs => i.ttl_seconds))) as expiry,
        case when i.not_before > n.now then date_trunc('milliseconds', i.not_before) end as start
      from ${rows(input)} as i(
        ord integer, id uuid, principal_id uuid, created_by text, key text, request_hash bytea, client_id text, action text,
        payload json, priority smallint, delivery text, start_timeout_seconds integer, timeout_seconds integer,
        max_retries integer, not_before timestamptz, expires_at timestamptz, ttl_seconds integer),
        (select clock_timestamp() as now) n
    ),
    waiting as materialized (
      select k.id, k.disabled,
        (select count(*) from executions e where e.client_id = k.id and e.status = 'pending') as pending
      from clients k
      where k.id in (select client_id from input) and k.deleted_at is null
      -- whoever deletes or disables a client comes before this command or finds it
      order by k.id for share of k
    ),
    checked as materialized (
      select i.*, k.pending,
        case
          when k.id is null then 'unknown_client'
          when k.disabled then 'disabled'
          when i.expiry <= i.created_at then 'past_expiry'
          when i.start >= i.expiry then 'never_due'
        end as refused
      from input i left join waiting k on k.id = i.client_id
    ),
    -- only what will be stored takes a place in the queue: neither what is refused nor the repetition of a key
    placed as materialized (
      select c.*, c.refused is null and (c.key is null or (
          row_number() over (partition by c.principal_id, c.key, c.refused is null order by c.ord) = 1
          and not exists (select 1 from idempotency_keys k where k.principal_id = c.principal_id and k.key = c.key)
        )) as takes_place
      from checked c
    ),
    judged as materialized (
      select p.*,
        case
          when p.refused is null and p.priority < 10
            and p.pending + count(*) filter (where p.takes_place) over (partition by p.client_id order by p.ord) > ${maxPendingPerClient}
          then 'queue_full'
          else p.refused
        end as fault
      from placed p
    ),
    keyed as (
      insert into idempotency_keys (principal_id, key, request_hash, command_id, created_at)
      select principal_id, key, request_hash, id, created_at from judged
      where fault is null and key is not null
      order by principal_id, key
      on conflict do nothing
      returning command_id
    ),
    accepted as materialized (
      select * from judged j where fault is null and (key is null or exists (select 1 from keyed where command_id = j.id))
    ),
    new_commands as (
      insert into commands (id, target, action, payload, priority, delivery, start_timeout_seconds, timeout_seconds,
        max_retries, total, created_by, created_at, not_before, expires_at)
      select id, jsonb_build_object('kind', 'client', 'clientId', client_id), action, payload, priority, delivery,
        start_timeout_seconds, timeout_seconds, max_retries, 1, created_by, created_at, start, expiry
      from accepted
    ),
    new_executions as (
      insert into executions (command_id, client_id, status, attempt, priority, not_before, expires_at)
      select id, client_id, 'pending', 1, priority, start, expiry from accepted
    ),
    new_events as (
      insert into events (type, command_id, client_id, data)
      select 'command.created', id, client_id, jsonb_build_object('action', action, 'createdBy', created_by)
      from accepted order by ord
    )
    select j.id, j.created_at, j.start as not_before, j.expiry as expires_at,
      case when j.fault is null and a.id is null then 'key_in_use' else j.fault end as refusal
    from judged j left join accepted a on a.id = j.id`.execute(db)
  return found.rows.map((row) =>
    row.refusal
      ? { id: row.id, refusal: row.refusal }
      : {
          id: row.id,
          refusal: null,
          createdAt: row.created_at.toISOString(),
          notBefore: row.not_before?.toISOString() ?? null,
          expiresAt: row.expires_at.toISOString(),
        },
  )
}

/** What an Idempotency-Key stands for, or undefined once it is forgotten. */
export async function findIdempotencyKey(
  db: Db,
  principalId: string,
  key: string,
): Promise<{ commandId: string; requestHash: string } | undefined> {
  const row = await db
    .selectFrom('idempotency_keys')
    .select(['command_id', 'request_hash'])
    .where('principal_id', '=', principalId)
    .where('key', '=', key)
    .executeTakeFirst()
  return row && { commandId: row.command_id, requestHash: row.request_hash.toString('hex') }
}

export async function forgetIdempotencyKeys(db: Db, olderThanSeconds: number, limit: number): Promise<void> {
  await sql`
    delete from idempotency_keys where (principal_id, key) in (
      select principal_id, key from idempotency_keys
      where created_at < clock_timestamp() - make_interval(secs => ${olderThanSeconds}) order by created_at limit ${limit})`.execute(
    db,
  )
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
  excluded: { clientId: string; reason: string }[]
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
