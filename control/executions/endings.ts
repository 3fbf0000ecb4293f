import type { ExecutionState } from '../../db/executions.ts'
import type { EventType } from '../../schemas/events.ts'
import type { ExecutionError, Status } from '../../schemas/executions.ts'
import type { Json } from '../../schemas/json.ts'
import type { Report } from '../../schemas/messages.ts'
import { inDoubt, silently, UNCLAIMED } from './states.ts'

// How a move ends, whatever it was: nothing moved, settled, or on to the next attempt; and what is written down about it.

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

export const still = (state: ExecutionState): Transition => ({ state, events: [] })

/** The server withdraws a pending row: with an earlier attempt in doubt it cannot claim that nothing happened. */
export function withdraw(state: ExecutionState, to: 'cancelled' | 'expired', context: Context): Transition {
  if (!inDoubt(state)) return settle(state, to, context, {})
  const message = `The command is ${to}, but an earlier attempt ended without a report and may have run.`
  return becomeUnknown(state, { code: 'IN_DOUBT', message }, context)
}

/** The server cannot tell; the client is asked, since a session of it with the memory of the hand-over may be there (rule 8). */
export function becomeUnknown(state: ExecutionState, error: ExecutionError, context: Context): Transition {
  const settled = settle(state, 'outcome_unknown', context, { error })
  return settled.state.status === 'outcome_unknown' ? { ...settled, effect: 'send-cancel' } : settled
}

/** Pending in the next attempt; the failure is an event, nobody sees `failed` in between (rule 5). */
export function nextAttempt(
  state: ExecutionState,
  silent: boolean,
  error: ExecutionError,
  context: Context,
): Transition {
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
export function unclaimedAttempt(state: ExecutionState, silent: boolean): ExecutionState {
  return { ...(silent ? silently(state) : state), ...UNCLAIMED, attempt: state.attempt + 1 }
}

/** The older attempt's `completed` settles the execution. */
export function completeBefore(state: ExecutionState, context: Context): Transition | undefined {
  if (!state.completedBefore) return undefined
  return settle(state, 'completed', context, { result: state.completedBefore.result })
}

export function settle(
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

export function event(state: ExecutionState, type: EventType, data: Record<string, Json> = {}): EventDraft {
  return { type, attempt: state.attempt, data }
}

export const saidBy = (by: string | undefined): { by?: string } => (by === undefined ? {} : { by })

/** A report that moved nothing is still part of the record. */
export function recorded(state: ExecutionState, attempt: number, said: Report): Transition {
  const data: Record<string, Json> = { status: said.status }
  if (said.result !== undefined) data.result = said.result
  if (said.error !== undefined) data.error = { ...said.error }
  if (said.progress !== undefined) data.progress = { ...said.progress }
  return { state, events: [{ type: 'execution.reported', attempt, data }] }
}

export function after(first: EventDraft, rest: Transition): Transition {
  return { ...rest, events: [first, ...rest.events] }
}
