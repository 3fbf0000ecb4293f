import type { Progress } from '../schemas/executions.ts'
import type { Report } from '../schemas/messages.ts'
import type { AttemptKey } from './journal.ts'

/** Below the 16 that a broker holds per connection while its database is away, so that pings are still answered. */
const WINDOW = 8

export interface ReporterOptions {
  /** The unreported outcome of an attempt, if it has one. */
  outcome: (key: AttemptKey) => Report | undefined
  /** Every attempt with an unreported outcome, in order. */
  unreported: () => AttemptKey[]
  /** The PUBACK of the outcome came. */
  acknowledged: (key: AttemptKey) => void
}

/** Resolves at the PUBACK, rejects if the connection ended before it. */
export type SendReport = (commandId: string, report: Report) => Promise<void>

interface Live {
  progress?: Progress
  changed: boolean
}

/**
 * Sends the reports: outcomes from the journal, `running` and progress from memory. In order; at most one report of an
 * attempt is under way at a time, so progress that comes faster than PUBACKs is reduced to the latest.
 */
export class Reporter {
  readonly #options: ReporterOptions
  /** Attempts that may have something to tell, in order. */
  readonly #queue = new Map<string, AttemptKey>()
  readonly #live = new Map<string, Live>()
  #inFlight = new Map<string, AttemptKey>()
  #send: SendReport | undefined
  #idle: (() => void)[] = []

  constructor(options: ReporterOptions) {
    this.#options = options
  }

  /** The connection is ready: whatever has no PUBACK is sent, again or for the first time. */
  attach(send: SendReport): void {
    this.#send = send
    this.#inFlight = new Map()
    const waiting = [...this.#queue.values()]
    this.#queue.clear()
    for (const key of [...this.#options.unreported(), ...waiting]) this.#queue.set(name(key), key)
    this.#pump()
  }

  /** The connection is gone. What it has not acknowledged is sent again on the next. */
  detach(): void {
    this.#send = undefined
    for (const [id, key] of this.#inFlight) if (this.#live.has(id)) this.#queue.set(id, key)
    this.#inFlight = new Map()
    this.#settle()
  }

  /** The attempt runs: says so, with its progress if there is any. */
  running(key: AttemptKey, progress?: Progress): void {
    this.#live.set(name(key), { progress, changed: true })
    this.#enqueue(key)
  }

  /** The attempt runs no more. */
  ended(key: AttemptKey): void {
    this.#live.delete(name(key))
  }

  /** The attempt has an outcome to report. */
  outcome(key: AttemptKey): void {
    this.#enqueue(key)
  }

  /** Resolves when nothing is left to send, or there is no connection to send it on. */
  async idle(): Promise<void> {
    if (this.#isIdle()) return
    await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  #enqueue(key: AttemptKey): void {
    if (!this.#inFlight.has(name(key))) this.#queue.set(name(key), key)
    this.#pump()
  }

  #pump(): void {
    for (const [id, key] of this.#queue) {
      if (!this.#send || this.#inFlight.size >= WINDOW) return
      this.#queue.delete(id)
      const outcome = this.#options.outcome(key)
      const report = outcome ?? this.#runningReport(key)
      if (report) this.#deliver(key, report, outcome !== undefined)
    }
    this.#settle()
  }

  #runningReport(key: AttemptKey): Report | undefined {
    const live = this.#live.get(name(key))
    if (!live?.changed) return undefined
    live.changed = false
    return { status: 'running', attempt: key.attempt, progress: live.progress, at: new Date().toISOString() }
  }

  #deliver(key: AttemptKey, report: Report, final: boolean): void {
    const send = this.#send as SendReport
    const inFlight = this.#inFlight
    inFlight.set(name(key), key)
    send(key.id, report).then(
      () => {
        inFlight.delete(name(key))
        // Its PUBACK counts even if the next connection already began: the server has it.
        if (final) this.#options.acknowledged(key)
        if (inFlight === this.#inFlight) this.#enqueueRest(key, final)
      },
      () => {
        // The connection ended: attach() sends an outcome again. `running` is told again if it still runs.
        const live = this.#live.get(name(key))
        if (live) live.changed = true
      },
    )
  }

  #enqueueRest(key: AttemptKey, final: boolean): void {
    if (!final) this.#queue.set(name(key), key)
    this.#pump()
  }

  #isIdle(): boolean {
    return !this.#send || (this.#queue.size === 0 && this.#inFlight.size === 0)
  }

  #settle(): void {
    if (!this.#isIdle()) return
    for (const resolve of this.#idle.splice(0)) resolve()
  }
}

const name = ({ id, attempt }: AttemptKey): string => `${id}/${attempt}`
