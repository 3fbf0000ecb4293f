import type { ExecutionState } from '../../db/executions.ts'
import { type ExecutionError, isTerminal, type Status } from '../../schemas/executions.ts'
import type { Report } from '../../schemas/messages.ts'
import {
  type Context,
  completeBefore,
  event,
  nextAttempt,
  recorded,
  settle,
  still,
  type Transition,
} from './endings.ts'
import { firstJournal, inDoubt, lastHandedOver, mayTryAgain, rank, remembersAll, silently } from './states.ts'

/** A client's word, judged by its position (rule 2). */
export function report(state: ExecutionState, said: Report, journalId: string | null, context: Context): Transition {
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
