import type { ExecutionState, Handover } from '../../db/executions.ts'
import type { EventType } from '../../schemas/events.ts'
import { type ExecutionError, isSettled, isTerminal, STATUSES, type Status } from '../../schemas/executions.ts'
import type { Json } from '../../schemas/json.ts'
import type { Report } from '../../schemas/messages.ts'

/**
 * The rules of one execution (contract, section 2) as one pure function. Every change of an execution, whoever asks for it,
 * is `transition(state, input)`; the ledger loads the state, applies it, and stores the result if nobody was faster.
 */

export type Input =
  /** The node that owns the client's session takes a pending row to hand it over. */
  | { type: 'claim'; epoch: number; journalId: string | null }
  /** The same node did not and will not forward its claim of that attempt. */
  | { type: 'release'; epoch: number; attempt: number }
  /** The client has it: its PUBACK, or the first report of an HTTP client, which may not name the attempt. */
  | { type: 'puback'; epoch: number; attempt: number | null }
  /** The session is over and all its PUBACKs are committed. */
  | { type: 'session-ended'; epoch: number }
  /** A session can be written to. `statusSeen`: it published its status, so a missing journal is known to be missing. */
  | { type: 'session-ready'; epoch: number; journalId: string | null; statusSeen: boolean }
  /** `journalId`: what the session that carried the report had published. */
  | { type: 'report'; report: Report; journalId: string | null }
  /** `by`, here and below: the principal who said so. */
  | { type: 'cancel'; reason: string | null; by?: string }
  /** A principal permits another run of what did not succeed; `ttlSeconds`: its time to live starts anew. */
  | { type: 'retry'; ttlSeconds: number; by?: string }
  /** A principal's word about an outcome that nobody can tell: what it was, or that it may run again. */
  | { type: 'resolve'; outcome: 'completed' | 'failed'; note: string; by?: string }
  | { type: 'resolve'; outcome: 'retry'; ttlSeconds: number; note: string; by?: string }
  /** The client is deleted: nobody will ever report. */
  | { type: 'abandon' }
  | { type: 'due' }
  | { type: 'expire' }
  | { type: 'timeout' }

type InputOf<T extends Input['type']> = Extract<Input, { type: T }>

export interface Context {
  /** The database's clock, milliseconds. */
  now: number
  backoff: { baseSeconds: number; maxSeconds: number }
  /** In [0, 1): full jitter. */
  random(): number
}

export interface EventDraft {
  type: EventType
  attempt: number
  data: Record<string, Json>
}

/** What the session has to be told. */
export type Effect = 'send-command' | 'send-cancel'

export interface Transition {
  state: ExecutionState
  events: EventDraft[]
  effect?: Effect
}

/** Rank within an attempt: it only grows, but for the release of an unforwarded first claim. */
export const rank = (status: Status): number =>
  isTerminal(status) ? STATUSES.indexOf('completed') : STATUSES.indexOf(status)

/** What a principal may permit another run of. */
const RETRYABLE = ['failed', 'rejected', 'expired', 'outcome_unknown'] satisfies Status[]

export const inFlight = (status: Status): boolean =>
  status === 'queued' || status === 'delivered' || status === 'running'

/** What an attempt begins with. */
const UNCLAIMED = {
  status: 'pending',
  epoch: null,
  deadline: null,
  progress: null,
  result: null,
  error: null,
  queuedAt: null,
  deliveredAt: null,
  startedAt: null,
  completedAt: null,
} as const

export function newExecution(
  from: Pick<
    ExecutionState,
    'delivery' | 'maxRetries' | 'startTimeoutSeconds' | 'timeoutSeconds' | 'expiresAt' | 'notBefore'
  >,
): ExecutionState {
  return {
    ...from,
    ...UNCLAIMED,
    attempt: 1,
    handovers: [],
    silentAttempts: [],
    completedBefore: null,
    cancelRequestedAt: null,
    cancelReason: null,
  }
}

/** Applies one input. The same state object comes back when nothing moved. */
export function transition(state: ExecutionState, input: Input, context: Context): Transition {
  switch (input.type) {
    case 'claim':
      return claim(state, input.epoch, input.journalId, context)
    case 'release':
      return release(state, input.epoch, input.attempt, context)
    case 'puback':
      return puback(state, input.epoch, input.attempt, context)
    case 'session-ended':
      return sessionEnded(state, input.epoch, context)
    case 'session-ready':
      return sessionReady(state, input, context)
    case 'report':
      return report(state, input.report, input.journalId, context)
    case 'cancel':
      return cancel(state, input, context)
    case 'abandon':
      return abandon(state, context)
    case 'retry':
      return retry(state, input, context)
    case 'resolve':
      return resolve(state, input, context)
    case 'due':
      return due(state, context)
    case 'expire':
      return state.status === 'pending' && context.now >= state.expiresAt
        ? withdraw(state, 'expired', context)
        : still(state)
    case 'timeout':
      return timeout(state, context)
  }
}

const still = (state: ExecutionState): Transition => ({ state, events: [] })

// ---- what a state says about hand-overs and doubt

/** The journal recorded at the first claim of an attempt, null if none was; undefined if it was never handed over. */
function firstJournal(state: ExecutionState, attempt: number): string | null | undefined {
  return state.handovers.find((handover) => handover.attempt === attempt)?.journalId
}

/** The last attempt that was handed over and the journal of its first claim: what a client may have, and know by. */
export function lastHandedOver(state: ExecutionState): Handover | undefined {
  const attempt = state.handovers.at(-1)?.attempt
  return state.handovers.find((handover) => handover.attempt === attempt)
}

const wasRedelivered = (state: ExecutionState): boolean =>
  state.handovers.filter((handover) => handover.attempt === state.attempt).length > 1

/** A redelivery went to a memory that may not have been the one of the first claim. */
const wentElsewhere = (state: ExecutionState): boolean =>
  state.handovers.some((handover, index) => {
    const first = state.handovers.findIndex((other) => other.attempt === handover.attempt)
    return first < index && (handover.journalId === null || handover.journalId !== state.handovers[first]?.journalId)
  })

export const inDoubt = (state: ExecutionState): boolean => state.silentAttempts.length > 0 || wentElsewhere(state)

/** The attempt ends, and not by its client's word about what happened. */
const silently = (state: ExecutionState): ExecutionState =>
  state.silentAttempts.includes(state.attempt)
    ? state
    : { ...state, silentAttempts: [...state.silentAttempts, state.attempt] }

/** Whether the one who reports has the memory of every hand-over. */
const remembersAll = (state: ExecutionState, journalId: string | null): boolean =>
  journalId !== null && state.handovers.every((handover) => handover.journalId === journalId)

const mayTryAgain = (state: ExecutionState): boolean =>
  state.delivery === 'at_least_once' && state.attempt <= state.maxRetries && state.cancelRequestedAt === null

// ---- moves

function claim(state: ExecutionState, epoch: number, journalId: string | null, { now }: Context): Transition {
  const claimable =
    state.status === 'pending' && state.cancelRequestedAt === null && state.notBefore === null && now < state.expiresAt
  if (!claimable) return still(state)
  const next: ExecutionState = {
    ...state,
    status: 'queued',
    epoch,
    handovers: [...state.handovers, { attempt: state.attempt, journalId }],
    deadline: now + state.startTimeoutSeconds * 1000,
    queuedAt: now,
  }
  return { state: next, events: [event(next, 'execution.queued', { epoch })], effect: 'send-command' }
}

/** The one step back: an attempt's first claim that its own living node did not forward (rule 6). */
function release(state: ExecutionState, epoch: number, attempt: number, context: Context): Transition {
  const isIts = state.status === 'queued' && state.epoch === epoch && state.attempt === attempt
  if (!isIts || wasRedelivered(state)) return still(state)
  const pending: ExecutionState = {
    ...state,
    status: 'pending',
    epoch: null,
    handovers: state.handovers.filter((handover) => handover.attempt !== state.attempt),
    deadline: null,
    queuedAt: null,
  }
  const released = event(pending, 'execution.released', { epoch })
  if (state.cancelRequestedAt !== null) return after(released, withdraw(pending, 'cancelled', context))
  if (context.now >= state.expiresAt) return after(released, withdraw(pending, 'expired', context))
  return after(released, completeBefore(pending, context) ?? still(pending))
}

function puback(state: ExecutionState, epoch: number, attempt: number | null, { now }: Context): Transition {
  if (state.status !== 'queued' || state.epoch !== epoch || (attempt ?? state.attempt) !== state.attempt)
    return still(state)
  const next: ExecutionState = { ...state, status: 'delivered', deliveredAt: now }
  return { state: next, events: [event(next, 'execution.delivered')] }
}

function sessionEnded(state: ExecutionState, epoch: number, context: Context): Transition {
  const nobodyCanVouch =
    state.status === 'queued' &&
    state.epoch === epoch &&
    state.delivery === 'at_most_once' &&
    firstJournal(state, state.attempt) === null
  if (!nobodyCanVouch) return still(state)
  return settle(state, 'outcome_unknown', context, {
    error: { code: 'SESSION_LOST', message: 'The connection ended before the client acknowledged the command.' },
  })
}

/** Brings what an earlier session may have left open to the new one: redeliver, ask, or say that nobody can tell. */
function sessionReady(
  state: ExecutionState,
  session: { epoch: number; journalId: string | null; statusSeen: boolean },
  context: Context,
): Transition {
  const last = lastHandedOver(state)
  const sameMemory = session.journalId !== null && session.journalId === last?.journalId
  if (state.status === 'outcome_unknown')
    return sameMemory ? { state, events: [], effect: 'send-cancel' } : still(state)
  if (!inFlight(state.status)) return still(state)
  const withdrawn = state.cancelRequestedAt !== null || (state.status === 'queued' && context.now >= state.expiresAt)
  if (state.status !== 'queued') return withdrawn ? { state, events: [], effect: 'send-cancel' } : still(state)
  if (state.epoch === session.epoch) return still(state)

  const first = firstJournal(state, state.attempt) ?? null
  if (!withdrawn && (state.delivery === 'at_least_once' || sameMemory)) return redeliver(state, session)
  if (state.delivery === 'at_most_once' && !sameMemory && (first === null || session.statusSeen)) {
    return settle(state, 'outcome_unknown', context, {
      error: {
        code: 'HANDOVER_LOST',
        message: 'The client came back without the memory of the session that was handed the command.',
      },
    })
  }
  return withdrawn ? { state, events: [], effect: 'send-cancel' } : still(state)
}

function redeliver(state: ExecutionState, session: { epoch: number; journalId: string | null }): Transition {
  const handover = { attempt: state.attempt, journalId: session.journalId }
  // A flapping client adds nothing after its first redelivery to the same memory.
  const last = state.handovers.at(-1)
  const known = wasRedelivered(state) && last?.attempt === handover.attempt && last.journalId === handover.journalId
  const next: ExecutionState = {
    ...state,
    epoch: session.epoch,
    handovers: known ? state.handovers : [...state.handovers, handover],
  }
  return {
    state: next,
    events: [event(next, 'execution.redelivered', { epoch: session.epoch })],
    effect: 'send-command',
  }
}

function cancel(state: ExecutionState, { reason, by }: InputOf<'cancel'>, context: Context): Transition {
  if (isSettled(state.status)) return still(state)
  if (state.cancelRequestedAt !== null) return { state, events: [], effect: 'send-cancel' }
  const asked: ExecutionState = { ...state, cancelRequestedAt: context.now, cancelReason: reason }
  const requested = event(asked, 'execution.cancel_requested', {
    ...(reason === null ? {} : { reason }),
    ...saidBy(by),
  })
  if (state.status === 'pending') return after(requested, withdraw(asked, 'cancelled', context))
  return { state: asked, events: [requested], effect: 'send-cancel' }
}

/** Only a principal permits a second run of an at_most_once action; the older attempt's late report still counts. */
function retry(
  state: ExecutionState,
  { ttlSeconds, by }: Omit<InputOf<'retry'>, 'type'>,
  context: Context,
): Transition {
  if (!(RETRYABLE as Status[]).includes(state.status)) return still(state)
  const silent = firstJournal(state, state.attempt) !== undefined && state.status === 'outcome_unknown'
  const next: ExecutionState = {
    ...unclaimedAttempt(state, silent),
    cancelRequestedAt: null,
    cancelReason: null,
    notBefore: null,
    expiresAt: context.now + ttlSeconds * 1000,
  }
  return { state: next, events: [event(next, 'execution.retried', { after: state.status, ...saidBy(by) })] }
}

function resolve(state: ExecutionState, word: InputOf<'resolve'>, context: Context): Transition {
  if (state.status !== 'outcome_unknown') return still(state)
  const { outcome, note, by } = word
  const resolved = event(state, 'execution.resolved', { outcome, note, ...saidBy(by) })
  if (outcome === 'retry') return after(resolved, retry(state, word, context))
  const error = outcome === 'failed' ? { code: 'RESOLVED', message: note } : null
  return after(resolved, settle({ ...state, completedBefore: null }, outcome, context, { error }))
}

function abandon(state: ExecutionState, context: Context): Transition {
  if (state.status === 'pending') return withdraw(state, 'cancelled', context)
  if (!inFlight(state.status)) return still(state)
  return settle(state, 'outcome_unknown', context, {
    error: { code: 'CLIENT_DELETED', message: 'The client was deleted while it had the command.' },
  })
}

/** A start time or a retry's wait has passed. */
function due(state: ExecutionState, { now }: Context): Transition {
  if (state.status !== 'pending' || state.notBefore === null || now < state.notBefore) return still(state)
  return still({ ...state, notBefore: null })
}

function timeout(state: ExecutionState, context: Context): Transition {
  if (!inFlight(state.status) || state.deadline === null || context.now < state.deadline) return still(state)
  const error =
    state.status === 'running'
      ? { code: 'TIMEOUT', message: `No outcome within ${state.timeoutSeconds} s of the start.` }
      : { code: 'START_TIMEOUT', message: `Not started within ${state.startTimeoutSeconds} s of the hand-over.` }
  if (mayTryAgain(state)) return nextAttempt(state, true, error, context)
  const unknown = state.delivery === 'at_most_once' || state.cancelRequestedAt !== null
  return unknown ? becomeUnknown(state, error, context) : settle(silently(state), 'failed', context, { error })
}

function report(state: ExecutionState, said: Report, journalId: string | null, context: Context): Transition {
  const last = lastHandedOver(state)?.attempt
  const attempt = said.attempt ?? last ?? 1
  // After a second hand-over, "the last one" may not be the one the client means: only `completed` is true of either.
  const ambiguous = said.attempt === undefined && last !== undefined && last > 1
  if (attempt > state.attempt || (ambiguous && said.status !== 'completed')) return recorded(state, attempt, said)
  if (attempt < state.attempt) return reportOfOlder(state, attempt, said, context)
  return reportOfNewest(state, said, journalId, context)
}

function reportOfNewest(state: ExecutionState, said: Report, journalId: string | null, context: Context): Transition {
  const { status } = said
  if (status === 'accepted' || isTerminal(state.status)) return recorded(state, state.attempt, said)
  if (status === 'running') return running(state, said, context)
  const outcome = { result: said.result ?? null, error: said.error ?? null, progress: said.progress ?? state.progress }
  if (status === 'outcome_unknown') {
    if (state.status === 'outcome_unknown') return recorded(state, state.attempt, said)
    const error = said.error ?? { code: 'OUTCOME_UNKNOWN', message: 'The client cannot tell what happened.' }
    if (mayTryAgain(state)) return nextAttempt(state, true, error, context)
    const unknown = state.delivery === 'at_most_once' || state.cancelRequestedAt !== null
    if (unknown) return settle(state, 'outcome_unknown', context, { ...outcome, error })
    return settle(silently(state), 'failed', context, { ...outcome, error })
  }
  if (status === 'failed' && state.status !== 'outcome_unknown' && mayTryAgain(state)) {
    return nextAttempt(
      state,
      false,
      said.error ?? { code: 'FAILED', message: 'The client reported a failure.' },
      context,
    )
  }
  if ((status === 'cancelled' || status === 'expired') && inDoubt(state) && !remembersAll(state, journalId)) {
    if (state.status === 'outcome_unknown') return recorded(state, state.attempt, said)
    return settle(state, 'outcome_unknown', context, {
      ...outcome,
      error: { code: 'IN_DOUBT', message: `The client reported ${status}, but an earlier hand-over may have run.` },
    })
  }
  return settle(state, status, context, { ...outcome, error: outcome.error ?? whyWithdrawn(state, status, context) })
}

/** Nobody cancelled it: the client was asked to, because it had expired before the client acknowledged it (rule 8). */
function whyWithdrawn(state: ExecutionState, to: Status, { now }: Context): ExecutionError | null {
  const expired = state.status === 'queued' && state.cancelRequestedAt === null && now >= state.expiresAt
  if (to !== 'cancelled' || !expired) return null
  return { code: 'EXPIRED', message: 'It expired before the client acknowledged it, and was withdrawn.' }
}

function running(state: ExecutionState, said: Report, { now }: Context): Transition {
  if (rank(state.status) < rank('running')) {
    const next: ExecutionState = {
      ...state,
      status: 'running',
      startedAt: now,
      notBefore: null,
      deadline: now + state.timeoutSeconds * 1000,
      progress: said.progress ?? null,
    }
    return { state: next, events: [event(next, 'execution.running', said.progress ? { progress: said.progress } : {})] }
  }
  if (state.status === 'running' && said.progress) {
    const next: ExecutionState = { ...state, progress: said.progress }
    return { state: next, events: [event(next, 'execution.progress', { progress: said.progress })] }
  }
  return recorded(state, state.attempt, said)
}

/** An older attempt's word: `completed` is kept, another final one ends the doubt about that attempt (rule 2). */
function reportOfOlder(state: ExecutionState, attempt: number, said: Report, context: Context): Transition {
  const noted = recorded(state, attempt, said)
  if (said.status === 'accepted' || said.status === 'running' || said.status === 'outcome_unknown') return noted
  if (isTerminal(state.status)) return noted
  const silentAttempts = state.silentAttempts.filter((silent) => silent !== attempt)
  if (said.status === 'completed') {
    const kept = { ...state, silentAttempts, completedBefore: { attempt, result: said.result ?? null } }
    const moved =
      state.status === 'pending' || state.status === 'outcome_unknown' ? completeBefore(kept, context) : undefined
    return { ...(moved ?? still(kept)), events: [...noted.events, ...(moved?.events ?? [])] }
  }
  if (silentAttempts.length === state.silentAttempts.length) return noted
  const cleared: ExecutionState = { ...state, silentAttempts }
  const withdrawnUnclaimed = state.status === 'outcome_unknown' && firstJournal(state, state.attempt) === undefined
  if (!withdrawnUnclaimed || inDoubt(cleared)) return { ...still(cleared), events: noted.events }
  const settled = settle(cleared, said.status, context, { result: said.result ?? null, error: said.error ?? null })
  return { ...settled, events: [...noted.events, ...settled.events] }
}

// ---- endings

/** The server withdraws a pending row: with an earlier attempt in doubt it cannot claim that nothing happened. */
function withdraw(state: ExecutionState, to: 'cancelled' | 'expired', context: Context): Transition {
  if (!inDoubt(state)) return settle(state, to, context, {})
  const message = `The command is ${to}, but an earlier attempt ended without a report and may have run.`
  return becomeUnknown(state, { code: 'IN_DOUBT', message }, context)
}

/** The server cannot tell; the client is asked, since a session of it with the memory of the hand-over may be there (rule 8). */
function becomeUnknown(state: ExecutionState, error: ExecutionError, context: Context): Transition {
  const settled = settle(state, 'outcome_unknown', context, { error })
  return settled.state.status === 'outcome_unknown' ? { ...settled, effect: 'send-cancel' } : settled
}

/** Pending in the next attempt; the failure is an event, nobody sees `failed` in between (rule 5). */
function nextAttempt(state: ExecutionState, silent: boolean, error: ExecutionError, context: Context): Transition {
  const wait = Math.min(context.backoff.baseSeconds * 2 ** (state.attempt - 1), context.backoff.maxSeconds)
  const notBefore = context.now + Math.round(context.random() * wait * 1000)
  const next: ExecutionState = {
    ...unclaimedAttempt(state, silent),
    notBefore: notBefore > context.now ? notBefore : null,
  }
  const tried = event(next, 'execution.next_attempt', { error, notBefore: new Date(notBefore).toISOString() })
  return after(tried, completeBefore(next, context) ?? still(next))
}

/** The next attempt, with nothing of the last one but what was handed over. `silent`: the last one ended without its report. */
function unclaimedAttempt(state: ExecutionState, silent: boolean): ExecutionState {
  return { ...(silent ? silently(state) : state), ...UNCLAIMED, attempt: state.attempt + 1 }
}

/** The older attempt's `completed` settles the execution. */
function completeBefore(state: ExecutionState, context: Context): Transition | undefined {
  if (!state.completedBefore) return undefined
  return settle(state, 'completed', context, { result: state.completedBefore.result })
}

function settle(
  state: ExecutionState,
  to: Status,
  context: Context,
  outcome: Partial<Pick<ExecutionState, 'result' | 'error' | 'progress'>>,
): Transition {
  const older = to !== 'completed' ? state.completedBefore : null
  const status = older ? 'completed' : to
  const next: ExecutionState = {
    ...state,
    status,
    deadline: null,
    notBefore: null,
    completedAt: context.now,
    progress: outcome.progress ?? state.progress,
    result: older ? older.result : (outcome.result ?? null),
    error: older ? null : (outcome.error ?? null),
  }
  const data: Record<string, Json> = {}
  if (next.result !== null) data.result = next.result
  if (next.error !== null) data.error = { ...next.error }
  if (older) data.completedInAttempt = older.attempt
  return { state: next, events: [event(next, `execution.${status}` as EventType, data)] }
}

// ---- events

function event(state: ExecutionState, type: EventType, data: Record<string, Json> = {}): EventDraft {
  return { type, attempt: state.attempt, data }
}

const saidBy = (by: string | undefined): { by?: string } => (by === undefined ? {} : { by })

/** A report that moved nothing is still part of the record. */
function recorded(state: ExecutionState, attempt: number, said: Report): Transition {
  const data: Record<string, Json> = { status: said.status }
  if (said.result !== undefined) data.result = said.result
  if (said.error !== undefined) data.error = { ...said.error }
  if (said.progress !== undefined) data.progress = { ...said.progress }
  return { state, events: [{ type: 'execution.reported', attempt, data }] }
}

function after(first: EventDraft, rest: Transition): Transition {
  return { ...rest, events: [first, ...rest.events] }
}
