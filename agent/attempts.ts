import type { ExecutionError, Progress } from '../schemas/executions.ts'
import type { Json } from '../schemas/json.ts'

// The agent's half of the model-checked rules (contract 2, rules 4 and 8): what the journal of one client remembers of
// one command id, and what may become of it. Pure: every function takes the attempts of the id and returns them changed.

/** Final states that are told to the server. */
export type OutcomeStatus = 'completed' | 'failed' | 'rejected' | 'cancelled' | 'expired' | 'outcome_unknown'

/**
 * `waiting`: given up while an older attempt runs, whose outcome decides. `superseded`: replaced by a newer attempt
 * before it started; nothing is reported for it.
 */
export type AttemptState = 'accepted' | 'started' | 'waiting' | 'superseded' | OutcomeStatus

export interface Outcome {
  status: OutcomeStatus
  result?: Json
  error?: ExecutionError
}

export interface Attempt {
  attempt: number
  state: AttemptState
  /** Only an outcome can be unreported for long: it is sent until its PUBACK came. */
  reported: boolean
  result?: Json
  error?: ExecutionError
  progress?: Progress
}

/** Every known attempt of one command id, in ascending order. */
export type Attempts = readonly Attempt[]

const CANCELLED: Outcome = { status: 'cancelled' }
const FOREIGN_CANCEL: Outcome = {
  status: 'outcome_unknown',
  error: {
    code: 'NOT_REMEMBERED',
    message: 'The agent does not know this attempt, and its journal is not the one asked',
  },
}
const INTERRUPTED: Outcome = {
  status: 'outcome_unknown',
  error: { code: 'AGENT_INTERRUPTED', message: 'The agent ended while this command was running' },
}
const FORGOTTEN: Outcome = {
  status: 'outcome_unknown',
  error: { code: 'JOURNAL_INCOMPLETE', message: "The agent's journal lost its last entries: it may have run" },
}

export const isOutcome = (state: AttemptState): state is OutcomeStatus =>
  state !== 'accepted' && state !== 'started' && state !== 'waiting' && state !== 'superseded'

/** Whether the attempt has an outcome that the server has not acknowledged. */
export const needsReport = (entry: Attempt): boolean => isOutcome(entry.state) && !entry.reported

/** A command arrived, for the first time or again. A known outcome is reported again. */
export function receive(attempts: Attempts, attempt: number): Attempts {
  if (find(attempts, attempt)) return reportAgain(attempts, attempt)
  if (attempts.some((entry) => entry.attempt > attempt)) {
    return put(attempts, { attempt, state: 'superseded', reported: true })
  }
  const accepted = put(attempts, { attempt, state: 'accepted', reported: false })
  const done = completedBefore(attempts, attempt)
  return supersedeBefore(done ? settle(accepted, attempt, completedLike(done)) : accepted, attempt)
}

/** At most one attempt of an id runs at a time, and none twice. */
export function mayStart(attempts: Attempts, attempt: number): boolean {
  return find(attempts, attempt)?.state === 'accepted' && !attempts.some((entry) => entry.state === 'started')
}

/** Throws if the attempt may not start: a start that was not allowed must not become an effect. */
export function start(attempts: Attempts, attempt: number): Attempts {
  if (!mayStart(attempts, attempt)) throw new Error(`attempt ${attempt} may not start`)
  return put(attempts, { attempt, state: 'started', reported: false })
}

/** The run ended. Attempts that were waiting for it, or were accepted meanwhile, are answered if it completed. */
export function finish(attempts: Attempts, attempt: number, outcome: Outcome): Attempts {
  if (find(attempts, attempt)?.state !== 'started') throw new Error(`attempt ${attempt} is not running`)
  let next = settle(attempts, attempt, outcome)
  for (const newer of attempts.filter((entry) => entry.attempt > attempt)) {
    const unstarted = newer.state === 'waiting' || newer.state === 'accepted'
    if (unstarted && outcome.status === 'completed') next = settle(next, newer.attempt, outcome)
    else if (newer.state === 'waiting') next = giveUp(next, newer.attempt, CANCELLED)
  }
  return next
}

/**
 * The attempt will not be started (cancelled, expired, refused). Its report speaks for the whole id: an older attempt
 * that completed, runs, or may have run decides, otherwise `outcome` is the answer.
 */
export function giveUp(attempts: Attempts, attempt: number, outcome: Outcome): Attempts {
  const older = attempts.filter((entry) => entry.attempt < attempt)
  const done = completedBefore(attempts, attempt)
  const unknown = older.findLast((entry) => entry.state === 'outcome_unknown')
  const given = (): Attempts => {
    if (done) return settle(attempts, attempt, completedLike(done))
    if (older.some((entry) => entry.state === 'started')) {
      return put(attempts, { attempt, state: 'waiting', reported: false })
    }
    if (unknown) return settle(attempts, attempt, { status: 'outcome_unknown', error: unknown.error })
    return settle(attempts, attempt, outcome)
  }
  return supersedeBefore(given(), attempt)
}

export interface Cancelled {
  attempts: Attempts
  /** The running attempt that is to be aborted; what it makes of that is its outcome. */
  abort?: number
}

/**
 * A cancel arrived. An attempt never seen is answered `cancelled`, and kept so that it never runs, only if `ownJournal`:
 * the server handed it over to this very memory, which would know it. Otherwise nobody can tell.
 */
export function cancel(attempts: Attempts, attempt: number, ownJournal: boolean): Cancelled {
  const abort = attempts.find((entry) => entry.state === 'started' && entry.attempt <= attempt)?.attempt
  const decided = (): Attempts => {
    const known = find(attempts, attempt)
    if (known?.state === 'accepted' || (!known && ownJournal)) return giveUp(attempts, attempt, CANCELLED)
    return known ? reportAgain(attempts, attempt) : settle(attempts, attempt, FOREIGN_CANCEL)
  }
  return { attempts: supersedeBefore(decided(), attempt), abort }
}

/** After a crash: what was in the middle may or may not have happened, and nobody can tell. */
export function restart(attempts: Attempts): Attempts {
  return attempts.map((entry) =>
    entry.state === 'started' || entry.state === 'waiting' ? settled(entry.attempt, INTERRUPTED) : entry,
  )
}

/** After the last entries of the memory were lost: whatever has no outcome may have been started since. */
export function lose(attempts: Attempts): Attempts {
  return attempts.map((entry) =>
    isOutcome(entry.state) || entry.state === 'superseded' ? entry : settled(entry.attempt, FORGOTTEN),
  )
}

/** The server's PUBACK of this outcome came. */
export function markReported(attempts: Attempts, attempt: number): Attempts {
  const entry = find(attempts, attempt)
  return entry && needsReport(entry) ? put(attempts, { ...entry, reported: true }) : attempts
}

function find(attempts: Attempts, attempt: number): Attempt | undefined {
  return attempts.find((entry) => entry.attempt === attempt)
}

function completedBefore(attempts: Attempts, attempt: number): Attempt | undefined {
  return attempts.findLast((entry) => entry.attempt < attempt && entry.state === 'completed')
}

function completedLike(done: Attempt): Outcome {
  return { status: 'completed', result: done.result }
}

function reportAgain(attempts: Attempts, attempt: number): Attempts {
  const entry = find(attempts, attempt)
  return entry && isOutcome(entry.state) && entry.reported ? put(attempts, { ...entry, reported: false }) : attempts
}

function supersedeBefore(attempts: Attempts, attempt: number): Attempts {
  return attempts.map((entry) =>
    entry.attempt < attempt && entry.state === 'accepted' ? { ...entry, state: 'superseded', reported: true } : entry,
  )
}

function settled(attempt: number, { status, result, error }: Outcome): Attempt {
  return { attempt, state: status, reported: false, result, error }
}

function settle(attempts: Attempts, attempt: number, outcome: Outcome): Attempts {
  return put(attempts, settled(attempt, outcome))
}

function put(attempts: Attempts, entry: Attempt): Attempts {
  const others = attempts.filter((other) => other.attempt !== entry.attempt)
  return [...others, entry].sort((a, b) => a.attempt - b.attempt)
}
