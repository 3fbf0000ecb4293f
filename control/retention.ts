import type { Logger } from 'pino'
import { type Db, isBadValue } from '../db/connect.ts'
import {
  BEFORE_ALL_COMMANDS,
  deleteCommands,
  deleteOldEvents,
  findOldCommands,
  type OldCommand,
} from '../db/retention.ts'
import { type Clock, createClock } from './clock.ts'
import type { Metrics } from './metrics/metrics.ts'

export interface RetentionDeps {
  db: Db
  log: Logger
  metrics: Metrics
  /** 0: everything is kept. */
  days: number
  /** Executions that one transaction removes at most; a command's are not divided. */
  batch: number
  intervalSeconds: number
}

/** An execution has about five events: so many times the batch is rarely reached. */
const EVENTS_PER_EXECUTION = 10

/** Removes what was settled long ago, little by little, so that history slows nothing down. */
export function createRetention(deps: RetentionDeps): Clock {
  const { db, log, metrics, days, batch, intervalSeconds } = deps
  let stopped = false

  /** Where this pass over what is old goes on, oldest first; undefined where it has come to the end. */
  let commandsFrom: string | undefined = BEFORE_ALL_COMMANDS
  let eventsFrom: number | undefined = 0
  /** Since the log last said so. */
  const total = { commands: 0, executions: 0, events: 0 }

  function count(gone: typeof total): void {
    metrics.removed(gone)
    total.commands += gone.commands
    total.executions += gone.executions
    total.events += gone.events
  }

  /** One step; answers where the next one begins. What has to stay is looked at once in a pass. */
  async function removeCommands(from: string): Promise<string | undefined> {
    const found = await findOldCommands(db, from, days, batch)
    const step = firstOf(found, batch)
    await remove(step.filter(({ removable }) => removable).map(({ id }) => id))
    return step.length < found.length || found.length === batch ? step.at(-1)?.id : undefined
  }

  async function remove(ids: string[]): Promise<void> {
    if (ids.length === 0) return
    try {
      for (;;) {
        const { commandIds, executions, events, more } = await deleteCommands(
          db,
          ids,
          days,
          batch * EVENTS_PER_EXECUTION,
        )
        count({ commands: commandIds.length, executions, events })
        if (!more || stopped) return
      }
    } catch (error) {
      if (!isBadValue(error)) throw error
      // A table that is not ours still refers to one of them: halve until it is found, and keep that one.
      if (ids.length === 1) {
        log.warn({ commandId: ids[0], reason: (error as Error).message }, 'old command cannot be removed')
        return
      }
      const middle = Math.ceil(ids.length / 2)
      await remove(ids.slice(0, middle))
      await remove(ids.slice(middle))
    }
  }

  async function removeEvents(from: number): Promise<number | undefined> {
    const { last, events } = await deleteOldEvents(db, from, days, batch * EVENTS_PER_EXECUTION)
    count({ commands: 0, executions: 0, events })
    return last
  }

  /** Both, one step each; answers whether there is more of the pass. */
  async function step(): Promise<boolean> {
    if (commandsFrom !== undefined) commandsFrom = await removeCommands(commandsFrom)
    if (eventsFrom !== undefined) eventsFrom = await removeEvents(eventsFrom)
    if (commandsFrom !== undefined || eventsFrom !== undefined) return true
    commandsFrom = BEFORE_ALL_COMMANDS
    eventsFrom = 0
    return false
  }

  async function pass(rest: (ms: number) => void): Promise<void> {
    const start = performance.now()
    const before = total.commands + total.events
    const more = await step()
    const idle = total.commands + total.events === before
    // While there is more it rests as long as it worked; longer where it only looked at what has to stay.
    if (more) rest((performance.now() - start) * (idle ? 9 : 1))
    else tell()
  }

  function tell(): void {
    if (total.commands + total.events === 0) return
    log.debug({ days, ...total }, 'what was older than RETENTION_DAYS is removed')
    Object.assign(total, { commands: 0, executions: 0, events: 0 })
  }

  const clock = createClock({ what: 'retention', log, intervalSeconds, pass })
  return {
    start() {
      if (days > 0) clock.start()
    },
    stop() {
      stopped = true
      return clock.stop()
    },
  }
}

/** As many as have `limit` executions to remove together, and one at least. */
function firstOf(commands: OldCommand[], limit: number): OldCommand[] {
  let executions = 0
  const end = commands.findIndex((command, index) => {
    executions += command.removable ? command.executions : 0
    return executions > limit && index > 0
  })
  return end === -1 ? commands : commands.slice(0, end)
}
