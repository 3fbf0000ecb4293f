import { sql } from 'kysely'
import type { Target } from '../schemas/commands.ts'
import type { EventType } from '../schemas/events.ts'
import type { Delivery, ExecutionError, Progress, Status } from '../schemas/executions.ts'
import type { Json } from '../schemas/json.ts'
import type { Db } from './connect.ts'
import { instant, millis, rows } from './rows.ts'

export interface ExecutionKey {
  commandId: string
  clientId: string
}

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
}

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

export interface ExecutionChange extends ExecutionKey {
  version: number
  state: ExecutionState
  /** The client's current session epoch that this change needs (rule 10), or null. */
  guardEpoch: number | null
  events: { type: EventType; attempt: number; data: Record<string, Json> }[]
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
    from ${rows(keys.map((key) => ({ command_id: key.commandId, client_id: key.clientId })))} as k(command_id uuid, client_id text)
    join executions e on e.command_id = k.command_id and e.client_id = k.client_id
    join commands c on c.id = e.command_id`.execute(db)
  return loaded(found.rows, toStored)
}

/** Everything that is handed over and not over, or that nobody can tell the outcome of, of these clients, with their sessions. */
export async function loadOpenExecutions(
  db: Db,
  clientIds: string[],
): Promise<Loaded<StoredExecution & { currentEpoch: number | null }>> {
  const found = await sql<StateRow & { session: number | null }>`
    select ${STATE}, k.session_epoch as session
    from executions e join commands c on c.id = e.command_id join clients k on k.id = e.client_id
    where e.client_id = any(${clientIds}::text[]) and e.status in ('queued', 'delivered', 'running', 'outcome_unknown')
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
    }
  >`
    select ${STATE}, s.epoch as session, c.payload, e.priority, c.target
    from ${rows(sessions.map(({ clientId, epoch, uncertain }) => ({ client_id: clientId, epoch, uncertain })))}
      as s(client_id text, epoch bigint, uncertain boolean)
    join clients k on k.id = s.client_id and k.session_epoch = s.epoch and not k.disabled
    cross join lateral (
      select count(*)::integer as size from executions o
      where o.client_id = s.client_id and o.status in ('queued', 'delivered', 'running')
    ) busy
    cross join lateral (
      (select p.* from executions p
        where p.client_id = s.client_id and p.status = 'pending' and p.priority = 10
          and p.not_before is null and p.expires_at > clock_timestamp()
        order by p.command_id limit 100)
      union all
      (select p.* from executions p
        where p.client_id = s.client_id and p.status = 'pending' and p.priority < 10
          and p.not_before is null and p.expires_at > clock_timestamp()
        order by p.priority desc, p.command_id limit greatest(k.max_in_flight - busy.size, 0))
      union all
      (select p.* from executions p
        where s.uncertain and p.client_id = s.client_id and p.status = 'queued' and p.epoch = s.epoch)
    ) e
    join commands c on c.id = e.command_id
    order by e.priority desc, e.command_id`.execute(db)
  return loaded(found.rows, (row) => ({
    ...toStored(row),
    epoch: row.session,
    payload: row.payload ?? undefined,
    priority: row.priority,
    target: row.target,
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
    .where('id', '=', sql<string>`any(${commandIds}::uuid[])`)
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

/**
 * Stores changed executions and their events in one statement. A row that somebody else changed since it was read, or whose
 * client has another session than the change needs, is left alone: the answer names the rows that were stored.
 */
export async function storeExecutions(db: Db, changes: ExecutionChange[]): Promise<ExecutionKey[]> {
  const input = changes.map(({ commandId, clientId, version, guardEpoch, state }) => ({
    command_id: commandId,
    client_id: clientId,
    version,
    guard: guardEpoch,
    status: state.status,
    attempt: state.attempt,
    epoch: state.epoch,
    handovers: state.handovers,
    silent_attempts: state.silentAttempts,
    completed_before: state.completedBefore,
    cancel_requested_at: instant(state.cancelRequestedAt),
    cancel_reason: state.cancelReason,
    not_before: instant(state.notBefore),
    expires_at: instant(state.expiresAt),
    deadline: instant(state.deadline),
    progress: state.progress,
    result: state.result,
    error: state.error,
    queued_at: instant(state.queuedAt),
    delivered_at: instant(state.deliveredAt),
    started_at: instant(state.startedAt),
    completed_at: instant(state.completedAt),
  }))
  const events = changes.flatMap(({ commandId, clientId, events: drafts }) =>
    drafts.map(({ type, attempt, data }) => ({ type, command_id: commandId, client_id: clientId, attempt, data })),
  )
  // Rows are locked in key order, clients before executions: two nodes never wait for each other.
  const stored = await sql<{ command_id: string; client_id: string }>`
    with input as (
      select * from ${rows(input)} as i(
        command_id uuid, client_id text, version integer, guard bigint, status text, attempt integer, epoch bigint,
        handovers jsonb, silent_attempts integer[], completed_before jsonb, cancel_requested_at timestamptz, cancel_reason text,
        not_before timestamptz, expires_at timestamptz, deadline timestamptz, progress json, result json, error json, queued_at timestamptz,
        delivered_at timestamptz, started_at timestamptz, completed_at timestamptz)
    ),
    sessions as (
      select k.id, k.session_epoch from clients k
      where k.id in (select client_id from input where guard is not null) order by k.id for no key update
    ),
    locked as (
      select e.command_id, e.client_id
      from input i join executions e on e.command_id = i.command_id and e.client_id = i.client_id
      left join sessions s on s.id = i.client_id
      where e.version = i.version and (i.guard is null or s.session_epoch = i.guard)
      order by e.command_id, e.client_id for update of e
    ),
    stored as (
      update executions e set
        version = e.version + 1, status = i.status, attempt = i.attempt, epoch = i.epoch, handovers = i.handovers,
        silent_attempts = i.silent_attempts, completed_before = i.completed_before, cancel_requested_at = i.cancel_requested_at,
        cancel_reason = i.cancel_reason, not_before = i.not_before, expires_at = i.expires_at, deadline = i.deadline, progress = i.progress,
        result = i.result, error = i.error, queued_at = i.queued_at, delivered_at = i.delivered_at,
        started_at = i.started_at, completed_at = i.completed_at
      from input i join locked l on l.command_id = i.command_id and l.client_id = i.client_id
      where e.command_id = i.command_id and e.client_id = i.client_id and e.version = i.version
      returning e.command_id, e.client_id
    ),
    logged as (
      insert into events (type, command_id, client_id, attempt, data)
      select v.type, v.command_id, v.client_id, v.attempt, v.data
      from rows from (json_to_recordset(${JSON.stringify(events)}::json)
        as (type text, command_id uuid, client_id text, attempt integer, data jsonb)) with ordinality
        as v(type, command_id, client_id, attempt, data, ord)
      join stored s on s.command_id = v.command_id and s.client_id = v.client_id
      order by v.ord
    )
    select command_id, client_id from stored`.execute(db)
  return stored.rows.map((row) => ({ commandId: row.command_id, clientId: row.client_id }))
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
