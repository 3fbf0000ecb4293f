import type { Progress } from '../schemas/executions.ts'
import type { CancelMessage, CommandMessage, Report } from '../schemas/messages.ts'
import {
  type Attempt,
  type AttemptState,
  type Attempts,
  cancel,
  finish,
  giveUp,
  isOutcome,
  lose,
  markReported,
  mayStart,
  needsReport,
  type Outcome,
  receive,
  restart,
  start,
} from './attempts.ts'
import { type BootClock, systemBootClock } from './boot-clock.ts'
import { openJournalFile } from './journal-file.ts'
import type { JournalStore, Row } from './journal-store.ts'
import { type AgentLog, silentLog } from './log.ts'

const DAY_MS = 86_400_000
/** An outcome that says that nothing happened: once it is told, the command must never run. */
const DENIALS: ReadonlySet<string> = new Set(['cancelled', 'expired', 'rejected'])
const NEVER_STARTED: Outcome = {
  status: 'failed',
  error: {
    code: 'DEVICE_RESTARTED',
    message: 'never started; the device restarted and cannot tell whether the command has expired meanwhile',
  },
}

export interface JournalOptions {
  /** Path of the SQLite file, or `:memory:`. */
  file: string
  log?: AgentLog
  /** Default: this machine's. Another one stands for another boot. */
  clock?: BootClock
  /** How long a command is kept after its outcome was acknowledged. Default 30. */
  retentionDays?: number
}

export interface AttemptKey {
  id: string
  attempt: number
}

/** An accepted attempt, as much of it as the choice of the next one needs. */
export interface Ready extends AttemptKey {
  action: string
  priority: number
  /** On the journal's clock, in ms: too late to start after it. */
  deadline: number
}

/** The attempts of an id after a change; an accepted or an unreported one among them is work. */
export interface Change {
  id: string
  attempts: Attempts
}

/**
 * The durable memory of one client: each function is one transaction, on disk when it returns.
 * Functions throw node:sqlite's errors (disk full, for instance), and then nothing of the step happened.
 */
export class Journal {
  readonly clock: BootClock
  readonly #store: JournalStore
  readonly #close: () => void
  readonly #prune: () => void
  readonly #pruneTimer: NodeJS.Timeout
  /** Started, and not in the mark yet: nothing has run. */
  readonly #unmarked = new Set<string>()
  #outcomeSeq: number

  constructor({ file, log = silentLog, clock = systemBootClock(), retentionDays = 30 }: JournalOptions) {
    const { store, close } = openJournalFile(file, log)
    this.#store = store
    this.#close = close
    this.clock = clock
    this.#outcomeSeq = Number(store.get('SELECT coalesce(max(outcome_seq), 0) AS n FROM attempts')?.n)
    if (store.lost) this.#renew(log)
    this.#prune = () => {
      try {
        this.prune(new Date(Date.now() - retentionDays * DAY_MS))
      } catch (error) {
        log.warn({ err: error }, 'Old journal entries could not be removed')
      }
    }
    this.#prune()
    this.#pruneTimer = setInterval(this.#prune, DAY_MS).unref()
  }

  /** Names this memory: another one once it is known to have lost something. */
  get journalId(): string {
    return this.#store.journalId
  }

  /** A command arrived: kept before its PUBACK. */
  received(command: CommandMessage): Change {
    return this.#step(command.id, (attempts) => receive(attempts, command.attempt), command)
  }

  /** A cancel arrived; `abort` is the running attempt to abort. */
  cancelled({ id, attempt, journalId }: CancelMessage): Change & { abort?: number } {
    let abort: number | undefined
    const change = this.#step(id, (attempts) => {
      const done = cancel(attempts, attempt, journalId === this.journalId)
      abort = done.abort
      return done.attempts
    })
    return { ...change, abort }
  }

  mayStart({ id, attempt }: AttemptKey): boolean {
    return mayStart(this.attempts(id), attempt)
  }

  /**
   * The attempt is about to run: from here on a crash leaves it `outcome_unknown`, and a journal that loses this start is noticed.
   * Returns its command. When it throws, nothing may run, and it can be called again.
   */
  started({ id, attempt }: AttemptKey): CommandMessage {
    const key = `${id}/${attempt}`
    if (!this.#unmarked.has(key)) this.#step(id, (attempts) => start(attempts, attempt))
    this.#unmarked.add(key)
    this.#store.mark()
    this.#unmarked.delete(key)
    const row = this.#store.get('SELECT command FROM attempts WHERE command_id = ? AND attempt = ?', id, attempt)
    return JSON.parse(row?.command as string)
  }

  /** The run ended. `progress` is the last it told. */
  finished({ id, attempt }: AttemptKey, outcome: Outcome, progress?: Progress): Change {
    const told = (entry: Attempt): Attempt => (entry.attempt === attempt ? { ...entry, progress } : entry)
    return this.#step(id, (attempts) => finish(attempts, attempt, outcome).map(progress ? told : (entry) => entry))
  }

  /** The attempt will not be started, because of `outcome` (expired, rejected). */
  gaveUp({ id, attempt }: AttemptKey, outcome: Outcome): Change {
    return this.#step(id, (attempts) => giveUp(attempts, attempt, outcome))
  }

  /** The PUBACK of an outcome came. */
  acknowledged({ id, attempt }: AttemptKey): void {
    this.#step(id, (attempts) => markReported(attempts, attempt))
  }

  /**
   * The first step after opening, before anything runs: what was running is `outcome_unknown`; what was accepted in
   * another boot is given up, because how long that boot is ago cannot be known. Returns how many of each.
   */
  recover(): { interrupted: number; neverStarted: number } {
    const rows = this.#unfinished()
    const stale = rows.filter((row) => row.state === 'accepted' && !this.#sameBoot(row))
    this.#store.transact(() => {
      for (const id of new Set(rows.map((row) => String(row.command_id)))) this.#change(id, restart)
      for (const row of stale) {
        this.#change(String(row.command_id), (attempts) => giveUp(attempts, Number(row.attempt), NEVER_STARTED))
      }
    })
    return { interrupted: rows.filter((row) => row.state !== 'accepted').length, neverStarted: stale.length }
  }

  attempts(id: string): Attempts {
    return this.#store.all('SELECT * FROM attempts WHERE command_id = ? ORDER BY attempt', id).map(attemptOf)
  }

  /** The accepted attempts of one id, or of all. */
  ready(id?: string): Ready[] {
    const accepted = "SELECT * FROM attempts WHERE state = 'accepted'"
    const rows = id === undefined ? this.#store.all(accepted) : this.#store.all(`${accepted} AND command_id = ?`, id)
    return rows.map((row) => ({
      id: String(row.command_id),
      attempt: Number(row.attempt),
      action: String(row.action),
      priority: Number(row.priority),
      deadline: Number(row.deadline_ms),
    }))
  }

  /** Outcomes without a PUBACK, in the order they came about. */
  unreported(): AttemptKey[] {
    const rows = this.#store.all(
      'SELECT command_id, attempt FROM attempts WHERE reported = 0 AND outcome_seq IS NOT NULL ORDER BY outcome_seq',
    )
    return rows.map((row) => ({ id: String(row.command_id), attempt: Number(row.attempt) }))
  }

  /** The report of an attempt's unreported outcome, to be sent now, or undefined if there is none. */
  report({ id, attempt }: AttemptKey): Report | undefined {
    const row = this.#store.get('SELECT * FROM attempts WHERE command_id = ? AND attempt = ?', id, attempt)
    const entry = row && attemptOf(row)
    if (!entry || !needsReport(entry) || !isOutcome(entry.state)) return undefined
    const { state: status, result, error, progress } = entry
    if (DENIALS.has(status)) this.#store.mark()
    return { status, attempt, result, error, progress, at: row.finished_at as string }
  }

  /**
   * Forgets commands whose every attempt was acknowledged before `before`. An `outcome_unknown` is never forgotten:
   * the server may ask again, and "never heard of it" would be answered `cancelled`.
   */
  prune(before: Date): void {
    this.#store.transact(() =>
      this.#store.remove(
        `DELETE FROM attempts WHERE command_id IN (
           SELECT command_id FROM attempts GROUP BY command_id
           HAVING max(coalesce(reported_at, '~')) < ? AND sum(state = 'outcome_unknown') = 0)
         RETURNING *`,
        before.toISOString(),
      ),
    )
  }

  close(): void {
    clearInterval(this.#pruneTimer)
    this.#close()
  }

  /** The last steps are gone: what was started, or denied, is not known any more, so it is another memory from now on. */
  #renew(log: AgentLog): void {
    const before = this.journalId
    const ids = new Set(this.#unfinished().map((row) => String(row.command_id)))
    this.#store.renew(() => {
      for (const id of ids) this.#change(id, lose)
    })
    const fields = { before, journalId: this.journalId, unknown: ids.size }
    log.error(fields, 'The journal lost its last entries, or is an old copy: it goes on under a new journalId')
  }

  #unfinished(): Row[] {
    return this.#store.all("SELECT * FROM attempts WHERE state IN ('accepted', 'started', 'waiting')")
  }

  #sameBoot(row: Row): boolean {
    return row.boot_id === this.clock.bootId && Number(row.arrived_ms) <= this.clock.now()
  }

  #step(id: string, work: (attempts: Attempts) => Attempts, command?: CommandMessage): Change {
    return { id, attempts: this.#store.transact(() => this.#change(id, work, command)) }
  }

  #change(id: string, work: (attempts: Attempts) => Attempts, command?: CommandMessage): Attempts {
    const before = this.attempts(id)
    const after = work(before)
    for (const entry of after) if (!before.includes(entry)) this.#write(id, entry, command)
    return after
  }

  #write(id: string, entry: Attempt, command?: CommandMessage): void {
    const now = new Date().toISOString()
    const outcome = isOutcome(entry.state)
    const arrived = this.clock.now()
    const values = {
      command_id: id,
      attempt: entry.attempt,
      state: entry.state,
      reported: Number(entry.reported),
      action: command?.action ?? null,
      priority: command?.priority ?? null,
      command: json(command),
      result: json(entry.result),
      error: json(entry.error),
      progress: json(entry.progress),
      boot_id: command ? this.clock.bootId : null,
      arrived_ms: command ? arrived : null,
      deadline_ms: command ? arrived + command.expiresInSeconds * 1000 : null,
      outcome_seq: needsReport(entry) ? ++this.#outcomeSeq : null,
      received_at: now,
      started_at: entry.state === 'started' ? now : null,
      finished_at: outcome ? now : null,
      reported_at: entry.reported ? now : null,
    }
    const columns = Object.keys(values)
    this.#store.put(
      `INSERT INTO attempts (${columns.join(', ')}) VALUES (:${columns.join(', :')})
       ON CONFLICT (command_id, attempt) DO UPDATE SET
         state = excluded.state, reported = excluded.reported,
         result = excluded.result, error = excluded.error, progress = excluded.progress,
         outcome_seq = coalesce(excluded.outcome_seq, outcome_seq),
         started_at = coalesce(started_at, excluded.started_at),
         finished_at = coalesce(finished_at, excluded.finished_at),
         reported_at = excluded.reported_at
       RETURNING *`,
      values,
    )
  }
}

function attemptOf(row: Row): Attempt {
  return {
    attempt: Number(row.attempt),
    state: row.state as AttemptState,
    reported: row.reported === 1,
    result: parsed(row.result),
    error: parsed(row.error),
    progress: parsed(row.progress),
  }
}

const json = (value: unknown): string | null => (value === undefined ? null : JSON.stringify(value))
// biome-ignore lint/suspicious/noExplicitAny: what this journal wrote, it reads back
const parsed = (text: Row[string] | undefined): any => (typeof text === 'string' ? JSON.parse(text) : undefined)
