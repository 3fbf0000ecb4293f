import type { Logger } from 'pino'
import { type Db, isBadValue } from '../db/connect.ts'
import { FEED_START, type FeedPosition } from '../db/events.ts'
import {
  BEFORE_ALL,
  deleteCommands,
  deleteOldAlerts,
  deleteOldAudit,
  deleteOldEnrolments,
  deleteOldEvents,
  findOldCommands,
  type OldCommand,
} from '../db/retention.ts'
import { type Clock, createClock } from './clock.ts'
import type { Metrics, Removable } from './metrics/metrics.ts'

export interface RetentionDeps {
  db: Db
  log: Logger
  metrics: Metrics
  /** Whether this node does what has to be done once. */
  leads(): boolean
  /** 0: everything but the audit is kept. */
  days: number
  /** 0: the audit is kept. */
  auditDays: number
  /** Executions that one transaction removes at most, or alerts, enrolments or audit rows; a command's are not divided. */
  batch: number
  intervalSeconds: number
}

/** An execution has about five events: so many times the batch is rarely reached. */
const EVENTS_PER_EXECUTION = 10

/** Removes what was over long ago, little by little, so that history slows nothing down. */
export function createRetention(deps: RetentionDeps): Clock {
  const { db, log, metrics, days, auditDays, batch, intervalSeconds } = deps
  let stopped = false
  /** Since the log last said so. */
  const total: Partial<Record<Removable, number>> = {}

  function count(gone: Partial<Record<Removable, number>>): void {
    for (const [kind, rows] of Object.entries(gone) as [Removable, number][]) {
      if (rows === 0) continue
      metrics.removed(kind, rows)
      total[kind] = (total[kind] ?? 0) + rows
    }
  }

  const removedSoFar = (): number => Object.values(total).reduce((sum, rows) => sum + rows, 0)

  /** What has to stay is looked at once in a pass. */
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

  async function removeEvents(from: FeedPosition): Promise<FeedPosition | undefined> {
    const { last, events } = await deleteOldEvents(db, from, days, batch * EVENTS_PER_EXECUTION)
    count({ events })
    return last
  }

  async function removeAlerts(from: string): Promise<string | undefined> {
    const { last, alerts } = await deleteOldAlerts(db, from, days, batch)
    count({ alerts })
    return last
  }

  async function removeAudit(): Promise<true | undefined> {
    const audit = await deleteOldAudit(db, auditDays, batch)
    count({ audit })
    return audit === batch || undefined
  }

  async function removeEnrolments(): Promise<true | undefined> {
    const enrolments = await deleteOldEnrolments(db, days, batch)
    count({ enrolments })
    return enrolments === batch || undefined
  }

  const parts = [
    ...(days > 0
      ? [
          partOf(BEFORE_ALL, removeCommands),
          partOf(FEED_START, removeEvents),
          partOf(BEFORE_ALL, removeAlerts),
          partOf(true, removeEnrolments),
        ]
      : []),
    ...(auditDays > 0 ? [partOf(true, removeAudit)] : []),
  ]

  async function pass(rest: (ms: number) => void): Promise<void> {
    if (!deps.leads()) return
    const start = performance.now()
    const before = removedSoFar()
    for (const part of parts) await part.step()
    const idle = removedSoFar() === before
    // While there is more it rests as long as it worked; longer where it only looked at what has to stay.
    if (parts.some((part) => !part.isOver())) return rest((performance.now() - start) * (idle ? 9 : 1))
    for (const part of parts) part.begin()
    tell()
  }

  function tell(): void {
    if (removedSoFar() === 0) return
    log.debug({ days, auditDays, ...total }, 'what was old enough is removed')
    for (const kind of Object.keys(total)) delete total[kind as Removable]
  }

  const clock = createClock({ what: 'retention', log, intervalSeconds, pass })
  return {
    start() {
      if (parts.length > 0) clock.start()
    },
    stop() {
      stopped = true
      return clock.stop()
    },
  }
}

/** One kind of what becomes old: a pass over it goes on, oldest first, where its last step ended. */
interface Part {
  step(): Promise<void>
  isOver(): boolean
  begin(): void
}

/** `step` answers where the next one begins; undefined where it has come to the end. */
function partOf<From>(beginning: From, step: (from: From) => Promise<From | undefined>): Part {
  let from: From | undefined = beginning
  return {
    async step() {
      if (from !== undefined) from = await step(from)
    },
    isOver: () => from === undefined,
    begin() {
      from = beginning
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
