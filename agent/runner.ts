import type { Progress } from '../schemas/executions.ts'
import type { CommandMessage } from '../schemas/messages.ts'
import { needsReport, type Outcome } from './attempts.ts'
import { AbortedError, type Handler, runHandler } from './handlers.ts'
import type { AttemptKey, Change, Journal, Ready } from './journal.ts'
import type { AgentLog } from './log.ts'
import type { Reporter } from './reporter.ts'

/** Passes the limit of concurrency, as it passes the server's window (contract, rule 7). */
const URGENT = 10
const RETRY_JOURNAL_MS = 1000
/** setTimeout fires at once for anything above 2^31 ms. */
const MAX_TIMER_MS = 3_600_000

export interface RunnerOptions {
  journal: Journal
  reporter: Reporter
  handlers: Record<string, Handler>
  /** Handlers that run at once. */
  concurrency: number
  log: AgentLog
}

interface Running {
  id: string
  controller: AbortController
  ended: Promise<void>
}

/** Starts what the journal has accepted, most urgent first, and writes down how it ends. */
export class Runner {
  readonly #options: RunnerOptions
  readonly #ready = new Map<string, Ready>()
  readonly #running = new Map<string, Running>()
  #stopped = false
  #abandoned = false
  #pumpDue: NodeJS.Immediate | undefined
  #expiryTimer: NodeJS.Timeout | undefined

  constructor(options: RunnerOptions) {
    this.#options = options
    for (const entry of options.journal.ready()) this.#ready.set(name(entry), entry)
    this.#wake()
  }

  /** The attempts of an id changed: what is accepted may be started, what has an outcome is reported. */
  changed({ id, attempts }: Change): void {
    const { journal, reporter } = this.#options
    for (const entry of attempts) this.#ready.delete(name({ id, attempt: entry.attempt }))
    if (attempts.some((entry) => entry.state === 'accepted')) {
      for (const entry of journal.ready(id)) this.#ready.set(name(entry), entry)
    }
    for (const entry of attempts) if (needsReport(entry)) reporter.outcome({ id, attempt: entry.attempt })
    this.#wake()
  }

  /** Aborts a running attempt because it was cancelled; its handler decides what came of it. */
  abort(key: AttemptKey, reason: string): void {
    this.#running.get(name(key))?.controller.abort(new AbortedError('cancel', reason))
  }

  /**
   * Starts nothing more, gives the running handlers `graceMs`, then aborts their signals and gives them `abortMs`.
   * Whoever still runs stays `started` in the journal: the next start calls it `outcome_unknown`.
   */
  async stop(graceMs: number, abortMs: number): Promise<void> {
    clearImmediate(this.#pumpDue)
    clearTimeout(this.#expiryTimer)
    this.#pumpDue = undefined
    this.#stopped = true
    await this.#allEnded(graceMs)
    for (const { controller } of this.#running.values()) {
      controller.abort(new AbortedError('stop', 'the agent is stopping'))
    }
    await this.#allEnded(abortMs)
    this.#abandoned = true
  }

  /** After stop(): how many handlers did not end. */
  get unfinished(): number {
    return this.#running.size
  }

  /** In the next turn, so that a burst of commands is in order before the first is chosen. */
  #wake(): void {
    if (this.#stopped) return
    this.#pumpDue ??= setImmediate(() => {
      this.#pumpDue = undefined
      this.#pump()
    })
  }

  #pump(): void {
    try {
      this.#expire()
      for (let next = this.#next(); next; next = this.#next()) this.#startOrGiveUp(next)
    } catch (error) {
      this.#options.log.error({ err: error }, 'The journal cannot be written; nothing is started')
      clearTimeout(this.#expiryTimer)
      this.#expiryTimer = setTimeout(() => this.#wake(), RETRY_JOURNAL_MS).unref()
    }
  }

  #next(): Ready | undefined {
    const full = this.#running.size >= this.#options.concurrency
    const free = this.#startable().filter(({ priority }) => !full || priority >= URGENT)
    return free.sort(byUrgency)[0]
  }

  /** Ready attempts whose id has none running. */
  #startable(): Ready[] {
    const ids = new Set([...this.#running.values()].map(({ id }) => id))
    return [...this.#ready.values()].filter(({ id }) => !ids.has(id))
  }

  /** Those that are too late, whether or not it is their turn, so that the server hears of it in time. */
  #expire(): void {
    const { journal } = this.#options
    const now = journal.clock.now()
    for (const entry of this.#startable().filter(({ deadline }) => deadline <= now)) this.#giveUp(entry, EXPIRED)
    const deadline = Math.min(...this.#startable().map((entry) => entry.deadline))
    clearTimeout(this.#expiryTimer)
    if (deadline === Number.POSITIVE_INFINITY) return
    // A clock of 10 ms steps: one step later it has passed for certain.
    this.#expiryTimer = setTimeout(() => this.#wake(), Math.min(deadline - now + 10, MAX_TIMER_MS)).unref()
  }

  #giveUp(entry: Ready, outcome: Outcome): void {
    this.changed(this.#options.journal.gaveUp(entry, outcome))
  }

  #startOrGiveUp(entry: Ready): void {
    const { journal, handlers } = this.#options
    const handler = Object.hasOwn(handlers, entry.action) ? handlers[entry.action] : undefined
    if (entry.deadline <= journal.clock.now()) this.#giveUp(entry, EXPIRED)
    else if (!handler) this.#giveUp(entry, unknownAction(entry.action))
    else this.#start(entry, handler)
  }

  #start(entry: Ready, handler: Handler): void {
    const command = this.#options.journal.started(entry)
    this.#options.log.info({ id: entry.id, attempt: entry.attempt, action: entry.action }, 'Command started')
    this.#ready.delete(name(entry))
    this.#options.reporter.running(entry)
    const running = { id: entry.id, controller: new AbortController(), ended: Promise.resolve() }
    this.#running.set(name(entry), running)
    running.ended = this.#run(entry, handler, command, running.controller.signal)
  }

  async #run(key: AttemptKey, handler: Handler, command: CommandMessage, signal: AbortSignal): Promise<void> {
    const { journal, reporter, log } = this.#options
    let latest: Progress | undefined
    const outcome = await runHandler(handler, command, signal, (progress) => {
      // A handler may keep the function and call it when its run is over.
      if (!this.#running.has(name(key))) return
      latest = progress
      reporter.running(key, progress)
    })
    const change = await this.#keep(() => journal.finished(key, outcome, latest))
    this.#running.delete(name(key))
    reporter.ended(key)
    if (!change) return
    log.info({ id: key.id, attempt: key.attempt, status: outcome.status, error: outcome.error }, 'Command ended')
    this.changed(change)
  }

  /** An outcome exists only once: while the journal cannot be written, it is kept here and tried again. */
  async #keep(write: () => Change): Promise<Change | undefined> {
    for (;;) {
      if (this.#abandoned) return undefined
      try {
        return write()
      } catch (error) {
        this.#options.log.error({ err: error }, 'An outcome cannot be written to the journal; trying again')
        await new Promise((resolve) => setTimeout(resolve, RETRY_JOURNAL_MS).unref())
      }
    }
  }

  async #allEnded(ms: number): Promise<void> {
    if (this.#running.size === 0) return
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, ms)
    await Promise.race([promise, Promise.all([...this.#running.values()].map(({ ended }) => ended))])
    clearTimeout(timer)
  }
}

const EXPIRED: Outcome = { status: 'expired' }

function unknownAction(action: string): Outcome {
  return { status: 'rejected', error: { code: 'UNKNOWN_ACTION', message: `This agent has no action ${action}` } }
}

/** Most urgent first, then oldest: command ids ascend with their creation. */
function byUrgency(a: Ready, b: Ready): number {
  return b.priority - a.priority || (a.id < b.id ? -1 : a.id > b.id ? 1 : a.attempt - b.attempt)
}

const name = ({ id, attempt }: AttemptKey): string => `${id}/${attempt}`
