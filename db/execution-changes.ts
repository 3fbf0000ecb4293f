import { type RawBuilder, sql } from 'kysely'
import type { EventType } from '../schemas/events.ts'
import type { Json } from '../schemas/json.ts'
import type { Db } from './connect.ts'
import { type ExecutionKey, type ExecutionState, KEY } from './executions.ts'
import { instant, rows } from './rows.ts'

export interface ExecutionChange extends ExecutionKey {
  version: number
  /** What that version says: only what is otherwise now is written. */
  before: ExecutionState
  state: ExecutionState
  /** The client's current session epoch that this change needs (rule 10), or null. */
  guardEpoch: number | null
  events: { type: EventType; attempt: number; data: Record<string, Json> }[]
}

const EVENT = { ord: 'integer', type: 'text', ...KEY, attempt: 'integer', data: 'jsonb' }

interface Column {
  name: string
  type: string
  key: keyof ExecutionState
  of(state: ExecutionState): unknown
}

const as = (name: string, type: string, key: keyof ExecutionState): Column => ({
  name,
  type,
  key,
  of: (state) => state[key],
})
const time = (name: string, key: TimeKey): Column => ({
  name,
  type: 'timestamptz',
  key,
  of: (state) => instant(state[key]),
})
type TimeKey = {
  [K in keyof ExecutionState]: ExecutionState[K] extends number | null ? K : never
}[keyof ExecutionState]

/** The columns that a change may write: a report writes the first ones, a claim also the second ones, the rest is seldom. `priority` is changed by other means. */
const STEPS: Column[][] = [
  [
    as('status', 'text', 'status'),
    time('deadline', 'deadline'),
    as('progress', 'json', 'progress'),
    as('result', 'json', 'result'),
    as('error', 'json', 'error'),
    time('delivered_at', 'deliveredAt'),
    time('started_at', 'startedAt'),
    time('completed_at', 'completedAt'),
  ],
  [as('epoch', 'bigint', 'epoch'), as('handovers', 'jsonb', 'handovers'), time('queued_at', 'queuedAt')],
  [
    as('attempt', 'integer', 'attempt'),
    as('silent_attempts', 'integer[]', 'silentAttempts'),
    as('completed_before', 'jsonb', 'completedBefore'),
    time('cancel_requested_at', 'cancelRequestedAt'),
    as('cancel_reason', 'text', 'cancelReason'),
    time('not_before', 'notBefore'),
    time('expires_at', 'expiresAt'),
  ],
]

/** A row cannot be without these. */
const NEEDED = ['priority', 'attempt', 'expires_at']

/** A column that is sent is written, read and assigned for each row of a round: what most changes leave as it is costs nothing. */
const WRITTEN = STEPS.map((_, step) => {
  const columns = STEPS.slice(0, step + 1).flat()
  const kept = NEEDED.filter((needed) => !columns.some(({ name }) => name === needed))
  const list = (one: (column: Column) => string): RawBuilder<unknown> => sql.raw(columns.map(one).join(', '))
  return {
    columns,
    kept: sql.raw(kept.join(', ')),
    names: sql.raw([...columns.map(({ name }) => name), ...kept].join(', ')),
    types: {
      ...KEY,
      version: 'integer',
      guard: 'bigint',
      ...Object.fromEntries(columns.map(({ name, type }) => [name, type])),
    },
    assigned: list(({ name }) => `${name} = excluded.${name}`),
  }
})

/** Everything that one of these changes has to write. */
function writtenBy(changes: ExecutionChange[]): (typeof WRITTEN)[number] {
  const writes = (columns: Column[]) =>
    changes.some(({ before, state }) => columns.some(({ key }) => state[key] !== before[key]))
  return WRITTEN[Math.max(STEPS.findLastIndex(writes), 0)] as (typeof WRITTEN)[number]
}

/**
 * Stores changed executions and their events in one statement. A row that somebody else changed since it was read, or whose
 * client has another session than the change needs, is left alone: the answer names the rows that were stored.
 */
export async function storeExecutions(db: Db, changes: ExecutionChange[]): Promise<ExecutionKey[]> {
  const { columns, kept, names, types, assigned } = writtenBy(changes)
  const input = changes.map(({ commandId, clientId, version, guardEpoch, state }) => {
    const row: Record<string, unknown> = { command_id: commandId, client_id: clientId, version, guard: guardEpoch }
    for (const { name, of } of columns) row[name] = of(state)
    return row
  })
  const events = changes
    .flatMap(({ commandId, clientId, events: drafts }) =>
      drafts.map((draft) => ({ ...draft, command_id: commandId, client_id: clientId })),
    )
    .map((event, ord) => ({ ...event, ord }))
  // Rows are locked in key order, clients before executions: two nodes never wait for each other.
  const stored = await sql<{ command_id: string; client_id: string }>`
    with input as (
      select * from ${rows('i', types, input)}
    ),
    sessions as materialized (
      select k.id, k.session_epoch
      from (select distinct client_id from input where guard is not null order by client_id) g
      cross join lateral (select id, session_epoch from clients where id = g.client_id for no key update) k
    ),
    locked as materialized (
      select i.*, e.*
      from (
        select i.* from input i left join sessions s on s.id = i.client_id
        where i.guard is null or s.session_epoch = i.guard order by i.command_id, i.client_id
      ) i
      cross join lateral (
        select ${kept} from executions
        where command_id = i.command_id and client_id = i.client_id and version = i.version for update
      ) e
    ),
    -- They are all there, and locked: an update by key, for which there is no other plan.
    stored as (
      insert into executions as e (command_id, client_id, version, ${names})
      select command_id, client_id, version + 1, ${names} from locked
      on conflict (command_id, client_id) do update set version = excluded.version, ${assigned}
      returning e.command_id, e.client_id
    ),
    logged as (
      insert into events (type, command_id, client_id, attempt, data)
      select v.type, v.command_id, v.client_id, v.attempt, v.data
      from ${rows('v', EVENT, events)}
      join stored s on s.command_id = v.command_id and s.client_id = v.client_id
      order by v.ord
    )
    select command_id, client_id from stored`.execute(db)
  return stored.rows.map((row) => ({ commandId: row.command_id, clientId: row.client_id }))
}
