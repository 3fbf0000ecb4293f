import type { ExecutionState } from '../../db/executions.ts'
import { isSettled, type Status } from '../../schemas/executions.ts'
import type { Report } from '../../schemas/messages.ts'
import {
  after,
  becomeUnknown,
  type Context,
  completeBefore,
  event,
  nextAttempt,
  saidBy,
  settle,
  still,
  type Transition,
  unclaimedAttempt,
  withdraw,
} from './endings.ts'
import { report } from './reports.ts'
import { firstJournal, inFlight, lastHandedOver, mayTryAgain, silently, wasRedelivered } from './states.ts'

/**
 * The rules of one execution (contract, section 2) as one pure function. Every change of an execution, whoever asks for it,
 * is `transition(state, input)`; the ledger has the state, applies it, and stores the result if nobody was faster. Here is what
 * sessions, principals and the clock do to it, in `reports.ts` what its client says, in `endings.ts` how any of that ends, and in
 * `states.ts` what all of them ask of a state.
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

/** What a principal may permit another run of. */
const RETRYABLE = ['failed', 'rejected', 'expired', 'outcome_unknown'] satisfies Status[]

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
