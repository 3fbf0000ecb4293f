import { type Db, isDatabaseDown } from '../../db/connect.ts'
import { type InsertedCommand, insertCommands, type NewCommand, readDatabaseClock } from '../../db/new-commands.ts'
import type { Settings } from '../../schemas/settings.ts'
import { type Batcher, createBatcher } from '../batcher.ts'
import type { DatabaseClock } from '../database-clock.ts'
import type { Dispatch, StoredCommand } from '../executions/dispatch.ts'
import type { NewWork } from '../executions/ledger.ts'
import { newExecution } from '../executions/states.ts'
import type { Metrics } from '../metrics/metrics.ts'
import { createCommandIds } from './command-ids.ts'
import { createQueueRoom, type QueueRoomDeps } from './queue-room.ts'

/** A command before it is known who claims it with the create, and whether its client's queue has to be counted. */
export type CommandToStore = Omit<NewCommand, 'claims' | 'sure'>

/**
 * Creates on their way to PostgreSQL: commands for one client share a statement, a group has one to itself. Those that count
 * against a quota wait for its counter, and nobody else's for them.
 */
export interface CommandInserts {
  /** Call it before the first command: from then on ids are made by PostgreSQL's clock. */
  start(): Promise<void>
  newId(): string
  add(command: CommandToStore): Promise<InsertedCommand>
  /** Something that was not pending has come back into the client's queue. */
  requeued(clientId: string): void
  /** Nobody knows what has come back: each queue is counted again. */
  recount(): void
  /** Whether commands were refused just now for want of PostgreSQL. */
  failing(): boolean
  stop(): Promise<void>
}

export interface CommandInsertsDeps {
  db: Db
  settings: Settings
  metrics: Metrics
  clock: DatabaseClock
  dispatch: Pick<Dispatch, 'announce'>
  aloneSince: QueueRoomDeps['aloneSince']
  /** Named point of the way, for the tests that end the process there. */
  passed?(point: 'create-committed'): void
}

export function createCommandInserts(deps: CommandInsertsDeps): CommandInserts {
  const { db, settings, metrics, clock } = deps
  const queueRoom = createQueueRoom(deps)
  const limits = { maxPendingPerClient: settings.MAX_PENDING_PER_CLIENT, dayTimeZone: settings.DAY_TIME_ZONE }

  /** Announced only now, so that nobody's session waits for more than the one statement. */
  async function insert(commands: CommandToStore[]): Promise<InsertedCommand[]> {
    const announced = commands.map((command) => ({
      command,
      ...deps.dispatch.announce(command.id, command.target, command.notBefore === null),
    }))
    const places = queueRoom.begin(commands.map(({ target }) => target))
    const complete = announced.map(({ command, claims }, at) => ({
      ...command,
      claims,
      sure: places.sure[at] as boolean,
    }))
    const inserted = await insertCommands(db, complete, limits).catch((error) => {
      places.end()
      // It may have been committed all the same.
      if (isDatabaseDown(error)) queueRoom.forget()
      for (const { settle } of announced) settle('unknown')
      throw error
    })
    // One statement has one time for all of them.
    const accepted = inserted.find((result) => result.refusal === null)
    if (accepted) {
      clock.observe(Date.parse(accepted.createdAt))
      deps.passed?.('create-committed')
    }
    const results = new Map(inserted.map((result) => [result.id, result]))
    places.end(commands.map(({ id }) => results.get(id)?.room))
    return announced.map(({ command, settle }) => {
      const result = results.get(command.id) as InsertedCommand
      settle(result.refusal === null ? storedCommand(command, result) : 'refused')
      return result
    })
  }

  const inserts = (max: number, name: string): Batcher<CommandToStore, InsertedCommand> =>
    createBatcher({ run: insert, max, whenDown: 'reject', meter: metrics.batcher(name) })
  const free = { single: inserts(200, 'create'), group: inserts(1, 'create_group') }
  const limited = { single: inserts(200, 'create_limited'), group: inserts(1, 'create_group_limited') }
  const all = [free.single, free.group, limited.single, limited.group]
  return {
    async start() {
      clock.observe((await readDatabaseClock(db)).getTime())
    },
    newId: createCommandIds(clock),
    requeued: queueRoom.requeued,
    recount: queueRoom.forget,
    add(command) {
      const { single, group } = command.quota === null ? free : limited
      // Ten thousand rows take their time: nobody's command for one client is stored behind them.
      return (command.target.kind === 'client' ? single : group).add(command)
    },
    failing: () => all.some((batcher) => batcher.failing()),
    stop: async () => {
      await Promise.all(all.map((batcher) => batcher.stop()))
    },
  }
}

/** As it was just committed. */
function storedCommand(command: CommandToStore, stored: Extract<InsertedCommand, { refusal: null }>): StoredCommand {
  const { action, payload, priority, target, delivery, maxRetries, startTimeoutSeconds, timeoutSeconds } = command
  const createdAt = Date.parse(stored.createdAt)
  const state = newExecution({
    delivery,
    maxRetries,
    startTimeoutSeconds,
    timeoutSeconds,
    expiresAt: Date.parse(stored.expiresAt),
    notBefore: stored.notBefore === null ? null : Date.parse(stored.notBefore),
  })
  const work: Omit<NewWork, 'clientId'> = {
    commandId: command.id,
    version: 0,
    action,
    payload,
    priority,
    target,
    createdAt,
    state,
  }
  return {
    clientIds: stored.clientIds,
    claimed: new Set(stored.claimed),
    work: (clientId) => ({ ...work, clientId }),
  }
}
