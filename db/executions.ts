import { sql } from 'kysely'
import type { Target } from '../schemas/commands.ts'
import type { Delivery, ExecutionError, Progress, Status } from '../schemas/executions.ts'
import type { Json } from '../schemas/json.ts'
import { openOf, undecidedOf } from './client-work.ts'
import type { Db } from './connect.ts'
import { list, millis, rows } from './rows.ts'

export interface ExecutionKey {
  commandId: string
  clientId: string
}

/** The same as columns of a batch. */
export const KEY = { command_id: 'uuid', client_id: 'text' }

/** What the rules of an execution work on, and the version that a change must find again. Times in ms on PostgreSQL's clock. */
export interface StoredExecution extends ExecutionKey {
  version: number
  /** Of its command. */
  action: string
  createdAt: number
  state: ExecutionState
}

/** The parts of a command that its message carries. */
export interface Claimable extends StoredExecution {
  epoch: number
  payload: Json | undefined
  priority: number
  target: Target
  /** Places that were free in the client's window. */
  room: number
}

/** The priority that passes the window, and what one claim takes of it at most. */
export const URGENT = 10
export const MAX_URGENT = 100

/** A claim that may have reached the client: of which attempt, and the journal that the session had published, if any. */
export interface Handover {
  attempt: number
  journalId: string | null
}

/** What the rules of an execution (control/executions/lifecycle.ts) work on. */
export interface ExecutionState {
  status: Status
  attempt: number
  delivery: Delivery
  maxRetries: number
  startTimeoutSeconds: number
  timeoutSeconds: number
  /** Session that holds the latest claim of this attempt; null while unclaimed. */
  epoch: number | null
  /** All hand-overs in order. The first of an attempt is its first claim; further ones are redeliveries. */
  handovers: Handover[]
  /** Attempts that ended without their report: they may have run (rule 8, "in doubt"). The newest is among them once it has failed so. */
  silentAttempts: number[]
  /** An older attempt's `completed`, kept until the newest would settle otherwise (rule 2). */
  completedBefore: { attempt: number; result: Json | null } | null
  cancelRequestedAt: number | null
  cancelReason: string | null
  /** All times in milliseconds since the epoch, on the database's clock. */
  notBefore: number | null
  expiresAt: number
  /** When the start timeout (queued, delivered) or the timeout (running) strikes. */
  deadline: number | null
  progress: Progress | null
  result: Json | null
  error: ExecutionError | null
  queuedAt: number | null
  deliveredAt: number | null
  startedAt: number | null
  completedAt: number | null
}

type StateRow = {
  command_id: string
  client_id: string
  version: number
  action: string
  created_at: number
  status: Status
  attempt: number
  delivery: 'at_least_once' | 'at_most_once'
  max_retries: number
  start_timeout_seconds: number
  timeout_seconds: number
  epoch: number | null
  handovers: { attempt: number; journalId: string | null }[]
  silent_attempts: number[]
  completed_before: { attempt: number; result: Json | null } | null
  cancel_requested_at: Date | null
  cancel_reason: string | null
  not_before: Date | null
  expires_at: Date
  deadline: Date | null
  progress: ExecutionState['progress']
  result: Json | null
  error: ExecutionState['error']
  queued_at: Date | null
  delivered_at: Date | null
  started_at: Date | null
  completed_at: Date | null
  now: Date
}

/** The creation time as a number: a Date would be parsed for each row, and is asked for by few. */
const STATE = sql`
  e.command_id, e.client_id, e.version, c.action, date_part('epoch', c.created_at) * 1000 as created_at, e.status, e.attempt, c.delivery, c.max_retries, c.start_timeout_seconds,
  c.timeout_seconds, e.epoch, e.handovers, e.silent_attempts, e.completed_before, e.cancel_requested_at, e.cancel_reason,
  e.not_before, e.expires_at, e.deadline, e.progress, e.result, e.error, e.queued_at, e.delivered_at, e.started_at,
  e.completed_at, clock_timestamp() as now`

/** By its key for each row, as in every statement here: see `PLANNER` in connect.ts. */
const COMMAND_OF_E = sql`cross join lateral (select * from commands where id = e.command_id offset 0) c`

/** PostgreSQL's clock at the read, in ms, and what was read. */
export interface Loaded<T> {
  now: number
  items: T[]
}

function loaded<Row extends { now: Date }, T>(found: Row[], map: (row: Row) => T): Loaded<T> {
  return { now: found[0] ? found[0].now.getTime() : 0, items: found.map(map) }
}

/** The named executions; those that do not exist are missing in the answer. */
export async function loadExecutions(db: Db, keys: ExecutionKey[]): Promise<Loaded<StoredExecution>> {
  const found = await sql<StateRow>`
    select ${STATE}
    from ${rows(
      'k',
      KEY,
      keys.map((key) => ({ command_id: key.commandId, client_id: key.clientId })),
    )}
    cross join lateral (
      select * from executions where command_id = k.command_id and client_id = k.client_id offset 0
    ) e
    ${COMMAND_OF_E}`.execute(db)
  return loaded(found.rows, toStored)
}

/** Everything that is handed over and not over, or that nobody can tell the outcome of, of these clients, with their sessions. */
export async function loadOpenExecutions(
  db: Db,
  clientIds: string[],
): Promise<Loaded<StoredExecution & { currentEpoch: number | null }>> {
  const found = await sql<StateRow & { session: number | null }>`
    select ${STATE}, k.session_epoch as session
    from unnest(${list('text', clientIds)}) as i(client_id)
    cross join lateral (select session_epoch from clients where id = i.client_id offset 0) k
    cross join lateral ${undecidedOf(sql`i.client_id`)} e
    ${COMMAND_OF_E}
    order by e.command_id`.execute(db)
  return loaded(found.rows, (row) => ({ ...toStored(row), currentEpoch: row.session }))
}

/**
 * What each session may claim now: inside its window, highest priority first, then oldest; priority 10 passes the window.
 * For an `uncertain` session, one whose last claim got no answer, also what that claim may have queued.
 */
export async function loadClaimable(
  db: Db,
  sessions: { clientId: string; epoch: number; uncertain: boolean }[],
): Promise<Loaded<Claimable>> {
  const found = await sql<
    StateRow & {
      session: number
      payload: Json | null
      priority: number
      target: Target
      room: number
    }
  >`
    select ${STATE}, s.epoch as session, c.payload, e.priority, c.target, w.room
    from ${rows(
      's',
      { client_id: 'text', epoch: 'bigint', uncertain: 'boolean' },
      sessions.map(({ clientId, epoch, uncertain }) => ({ client_id: clientId, epoch, uncertain })),
    )}
    cross join lateral (
      select max_in_flight from clients where id = s.client_id and session_epoch = s.epoch and not disabled offset 0
    ) k
    cross join lateral (
      select greatest(k.max_in_flight - count(*)::integer, 0) as room from ${openOf(sql`s.client_id`)} o
    ) w
    cross join lateral (
      (select p.* from executions p
        where p.client_id = s.client_id and p.status = 'pending' and p.priority = ${sql.lit(URGENT)}
          and p.not_before is null and p.expires_at > clock_timestamp()
        order by p.command_id limit ${MAX_URGENT})
      union all
      (select p.* from executions p
        where p.client_id = s.client_id and p.status = 'pending' and p.priority < ${sql.lit(URGENT)}
          and p.not_before is null and p.expires_at > clock_timestamp()
        order by p.priority desc, p.command_id limit w.room)
      union all
      (select p.* from ${openOf(sql`s.client_id`)} p where s.uncertain and p.status = 'queued' and p.epoch = s.epoch)
    ) e
    ${COMMAND_OF_E}
    order by e.priority desc, e.command_id`.execute(db)
  return loaded(found.rows, (row) => ({
    ...toStored(row),
    epoch: row.session,
    payload: row.payload ?? undefined,
    priority: row.priority,
    target: row.target,
    room: row.room,
  }))
}

/** The message parts of executions that are to be sent again. */
export async function loadMessages(
  db: Db,
  commandIds: string[],
): Promise<Map<string, Pick<Claimable, 'action' | 'payload' | 'priority' | 'target' | 'createdAt'>>> {
  const found = await db
    .selectFrom('commands')
    .select(['id', 'action', 'payload', 'priority', 'target', 'created_at'])
    .where('id', '=', sql<string>`any(${list('uuid', commandIds)})`)
    .execute()
  return new Map(
    found.map((row) => [
      row.id,
      {
        action: row.action,
        payload: (row.payload ?? undefined) as Json | undefined,
        priority: row.priority,
        target: row.target as Target,
        createdAt: row.created_at.getTime(),
      },
    ]),
  )
}

/** A command's executions on clients that were not deleted: nobody else can be asked, or sent anything. */
export async function findExecutionKeys(db: Db, commandId: string, clientIds?: string[]): Promise<ExecutionKey[]> {
  let query = db
    .selectFrom('executions')
    .innerJoin('clients', 'clients.id', 'executions.client_id')
    .select('client_id')
    .where('command_id', '=', commandId)
    .where('deleted_at', 'is', null)
  if (clientIds) query = query.where('client_id', '=', sql<string>`any(${clientIds}::text[])`)
  const found = await query.orderBy('client_id').execute()
  return found.map((row) => ({ commandId, clientId: row.client_id }))
}

/** What clients left behind when they were deleted: a process that died in between, or a command that came at the same moment. */
export async function findUnsettledOfDeleted(db: Db, clientId: string | null, limit: number): Promise<ExecutionKey[]> {
  // Two arms, so that each finds its partial index: the history of deleted clients may be long.
  const found = await sql<{ command_id: string; client_id: string }>`
    with gone as (select id from clients where deleted_at is not null and (${clientId}::text is null or id = ${clientId}))
    (select e.command_id, e.client_id from gone join executions e on e.client_id = gone.id and e.status = 'pending')
    union all
    (select e.command_id, e.client_id from gone join executions e on e.client_id = gone.id
      and e.status in ('queued', 'delivered', 'running'))
    limit ${limit}`.execute(db)
  return found.rows.map((row) => ({ commandId: row.command_id, clientId: row.client_id }))
}

function toStored(row: StateRow): StoredExecution {
  return {
    commandId: row.command_id,
    clientId: row.client_id,
    version: row.version,
    action: row.action,
    createdAt: Math.round(row.created_at),
    state: {
      status: row.status,
      attempt: row.attempt,
      delivery: row.delivery,
      maxRetries: row.max_retries,
      startTimeoutSeconds: row.start_timeout_seconds,
      timeoutSeconds: row.timeout_seconds,
      epoch: row.epoch,
      handovers: row.handovers,
      silentAttempts: row.silent_attempts,
      completedBefore: row.completed_before,
      cancelRequestedAt: millis(row.cancel_requested_at),
      cancelReason: row.cancel_reason,
      notBefore: millis(row.not_before),
      expiresAt: row.expires_at.getTime(),
      deadline: millis(row.deadline),
      progress: row.progress,
      result: row.result,
      error: row.error,
      queuedAt: millis(row.queued_at),
      deliveredAt: millis(row.delivered_at),
      startedAt: millis(row.started_at),
      completedAt: millis(row.completed_at),
    },
  }
}
