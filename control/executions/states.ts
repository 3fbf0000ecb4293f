import type { ExecutionState, Handover } from '../../db/executions.ts'
import { isTerminal, STATUSES, type Status } from '../../schemas/executions.ts'

// What a state of an execution begins as, and what it says: about its position, its hand-overs, and doubt.

/** What an attempt begins with. */
export const UNCLAIMED = {
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

/** Rank within an attempt: it only grows, but for the release of an unforwarded first claim. */
export const rank = (status: Status): number =>
  isTerminal(status) ? STATUSES.indexOf('completed') : STATUSES.indexOf(status)

export const inFlight = (status: Status): boolean =>
  status === 'queued' || status === 'delivered' || status === 'running'

/** The journal recorded at the first claim of an attempt, null if none was; undefined if it was never handed over. */
export function firstJournal(state: ExecutionState, attempt: number): string | null | undefined {
  return state.handovers.find((handover) => handover.attempt === attempt)?.journalId
}

/** The last attempt that was handed over and the journal of its first claim: what a client may have, and know by. */
export function lastHandedOver(state: ExecutionState): Handover | undefined {
  const attempt = state.handovers.at(-1)?.attempt
  return state.handovers.find((handover) => handover.attempt === attempt)
}

export const wasRedelivered = (state: ExecutionState): boolean =>
  state.handovers.filter((handover) => handover.attempt === state.attempt).length > 1

/** A redelivery went to a memory that may not have been the one of the first claim. */
const wentElsewhere = (state: ExecutionState): boolean =>
  state.handovers.some((handover, index) => {
    const first = state.handovers.findIndex((other) => other.attempt === handover.attempt)
    return first < index && (handover.journalId === null || handover.journalId !== state.handovers[first]?.journalId)
  })

export const inDoubt = (state: ExecutionState): boolean => state.silentAttempts.length > 0 || wentElsewhere(state)

/** The attempt ends, and not by its client's word about what happened. */
export const silently = (state: ExecutionState): ExecutionState =>
  state.silentAttempts.includes(state.attempt)
    ? state
    : { ...state, silentAttempts: [...state.silentAttempts, state.attempt] }

/** Whether the one who reports has the memory of every hand-over. */
export const remembersAll = (state: ExecutionState, journalId: string | null): boolean =>
  journalId !== null && state.handovers.every((handover) => handover.journalId === journalId)

export const mayTryAgain = (state: ExecutionState): boolean =>
  state.delivery === 'at_least_once' && state.attempt <= state.maxRetries && state.cancelRequestedAt === null
