import { randomUUID } from 'node:crypto'
import { createDatabaseClock } from '../../../control/database-clock.ts'
import { createLedger, type Ledger } from '../../../control/executions/ledger.ts'
import { createMetrics } from '../../../control/metrics/metrics.ts'
import { connectDatabase, type Db } from '../../../db/connect.ts'
import { storeExecutions } from '../../../db/execution-changes.ts'
import { type ExecutionState, loadExecutions } from '../../../db/executions.ts'
import { createTestDatabase, type TestDatabase } from '../../support/database.ts'
import { silent } from '../../support/silent-log.ts'
import { BACKOFF } from './inputs.ts'

export interface Store {
  db: Db
  url: string
  query: TestDatabase['query']
  stop(): Promise<void>
}

export async function openStore(): Promise<Store> {
  const database = await createTestDatabase()
  const db = connectDatabase({
    connection: database.url,
    poolSize: 4,
    timeoutSeconds: 10,
    onIdleError: () => undefined,
  })
  return {
    db,
    url: database.url,
    query: database.query,
    async stop() {
      await db.destroy()
      await database.drop()
    },
  }
}

/** A ledger over the store, as each node has one. */
export const openLedger = ({ db }: Store): Ledger =>
  createLedger({
    db,
    log: silent,
    metrics: createMetrics({ maxLabelValues: 1, isRegistered: () => false }),
    clock: createDatabaseClock(),
    backoff: BACKOFF,
    random: () => 0.5,
  })

export interface StoredClient {
  id: string
  epoch: number | null
  maxInFlight: number
  disabled: boolean
}

export interface StoredRow {
  commandId: string
  clientId: string
  priority: number
  state: ExecutionState
}

let count = 0

/** Client ids that no other test has. */
export const clientIds = (howMany: number): string[] => Array.from({ length: howMany }, () => `client-${count++}`)

/** Command ids in ascending order. */
export const commandIds = (howMany: number): string[] =>
  Array.from({ length: howMany }, () => randomUUID()).sort((a, b) => (a < b ? -1 : 1))

/** Nothing but these clients and executions, each in its state with version 0. */
export async function fill({ db, query }: Store, clients: StoredClient[], rows: StoredRow[]): Promise<void> {
  await query('truncate events, executions, commands, clients cascade')
  await query(
    `insert into clients (id, name, key_hash, max_in_flight, session_epoch, disabled)
     select id, id, convert_to(id, 'UTF8'), "maxInFlight", epoch, disabled
     from json_to_recordset($1::json) as c(id text, "maxInFlight" integer, epoch bigint, disabled boolean)`,
    [JSON.stringify(clients)],
  )
  const inserted = rows.map(({ commandId, clientId, priority, state }) => ({
    commandId,
    clientId,
    priority,
    delivery: state.delivery,
    start: state.startTimeoutSeconds,
    timeout: state.timeoutSeconds,
    retries: state.maxRetries,
    expires: new Date(state.expiresAt),
  }))
  await query(
    `with input as (
       select * from json_to_recordset($1::json) as i("commandId" uuid, "clientId" text, priority smallint, delivery text,
         start integer, timeout integer, retries integer, expires timestamptz)
     ),
     new_commands as (
       insert into commands (id, target, action, priority, delivery, start_timeout_seconds, timeout_seconds, max_retries, total,
         created_by, created_at, expires_at)
       select "commandId", jsonb_build_object('kind', 'client', 'clientId', "clientId"), 'do', priority, delivery, start, timeout,
         retries, 1, 'test', clock_timestamp(), expires
       from input
     )
     insert into executions (command_id, client_id, status, attempt, priority, expires_at, version)
     select "commandId", "clientId", 'pending', 1, priority, expires, -1 from input`,
    [JSON.stringify(inserted)],
  )
  const changes = rows.map(({ commandId, clientId, state }) => ({
    commandId,
    clientId,
    version: -1,
    // Nothing is as it was.
    before: {} as ExecutionState,
    state,
    guardEpoch: null,
    events: [],
  }))
  const stored = await storeExecutions(db, changes)
  if (stored.length !== rows.length) throw new Error('not every execution was stored')
}

/** As they are now, in the order of `rows`. */
export async function readBack({ db }: Store, rows: StoredRow[]) {
  const { items } = await loadExecutions(db, rows)
  return rows.map((row) => {
    const found = items.find(({ commandId, clientId }) => commandId === row.commandId && clientId === row.clientId)
    if (!found) throw new Error(`execution ${row.commandId} is gone`)
    return found
  })
}
