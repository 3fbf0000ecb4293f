import fc from 'fast-check'
import type { Context, Transition } from '../../../control/executions/endings.ts'
import { type Input, transition } from '../../../control/executions/lifecycle.ts'
import { inFlight, newExecution } from '../../../control/executions/states.ts'
import type { ExecutionState } from '../../../db/executions.ts'
import { isSettled, isTerminal } from '../../../schemas/executions.ts'
import { ReportStatus } from '../../../schemas/messages.ts'

// Everything that may happen to an execution, in any order: what makes sense and what does not.

export const BACKOFF = { baseSeconds: 1, maxSeconds: 4 }

const epoch = fc.integer({ min: 1, max: 3 })
const journalId = fc.constantFrom(null, 'a', 'b')
const attempt = fc.integer({ min: 1, max: 3 })
const type = <Type extends Input['type']>(name: Type) => fc.constant(name)

const report = fc.record(
  {
    status: fc.constantFrom(...ReportStatus.options),
    attempt,
    progress: fc.record({ done: fc.nat(9), total: fc.nat(9) }, { noNullPrototype: true }),
    result: fc.constantFrom(null, 0, 'done', { pages: 3 }),
    error: fc.constantFrom({ code: 'E', message: 'it did not work' }, { code: 'TIMEOUT', message: 'it took too long' }),
  },
  { requiredKeys: ['status'] },
)

export const claim = fc.record({ type: type('claim'), epoch, journalId })
export const sessionReady = fc.record({ type: type('session-ready'), epoch, journalId, statusSeen: fc.boolean() })
export const sessionEnded = fc.record({ type: type('session-ended'), epoch })

/** What is given to one execution by its name. */
export const named: fc.Arbitrary<Input> = fc.oneof(
  fc.record({ type: type('release'), epoch, attempt }),
  fc.record({ type: type('puback'), epoch, attempt: fc.option(attempt) }),
  { weight: 3, arbitrary: fc.record({ type: type('report'), journalId, report }) },
  fc.record({ type: type('cancel'), reason: fc.constantFrom(null, 'not needed') }),
  fc.record({ type: type('retry'), ttlSeconds: fc.constantFrom(1, 1_000_000) }),
  fc.record({
    type: type('resolve'),
    outcome: fc.constantFrom('completed' as const, 'failed' as const),
    note: fc.constant('looked'),
  }),
  fc.record({
    type: type('resolve'),
    outcome: fc.constant('retry' as const),
    ttlSeconds: fc.constantFrom(1, 1_000_000),
    note: fc.constant('looked'),
  }),
  fc.constantFrom<Input>({ type: 'expire' }, { type: 'timeout' }, { type: 'due' }, { type: 'abandon' }),
)

/** Claims and PUBACKs that fit are likely enough for a sequence to get somewhere. */
const input: fc.Arbitrary<Input> = fc.oneof(
  { weight: 2, arbitrary: claim },
  { weight: 1, arbitrary: sessionReady },
  { weight: 1, arbitrary: sessionEnded },
  { weight: 6, arbitrary: named },
)

export interface Step {
  input: Input
  waitMs: number
}

const step = fc.record<Step>({ input, waitMs: fc.constantFrom(0, 1, 500, 2000) })
export const steps = fc.array(step, { maxLength: 30 })

/** A short history, which leaves most executions unsettled. */
export const beginning: fc.Arbitrary<Step[]> = fc
  .tuple(
    fc.oneof(
      { weight: 2, arbitrary: fc.constant<Input[]>([]) },
      { weight: 2, arbitrary: claim.map((first): Input[] => [first]) },
      claim.map((first): Input[] => [first, { type: 'puback', epoch: first.epoch, attempt: 1 }]),
    ),
    fc.array(step, { maxLength: 2 }),
  )
  .map(([begun, rest]) => [...begun.map((given) => ({ input: given, waitMs: 1 })), ...rest])
export const delivery = fc.constantFrom('at_least_once' as const, 'at_most_once' as const)

export const freshExecution = (
  kind: ExecutionState['delivery'],
  given: Partial<Parameters<typeof newExecution>[0]> = {},
): ExecutionState =>
  newExecution({
    delivery: kind,
    maxRetries: 2,
    startTimeoutSeconds: 1,
    timeoutSeconds: 1,
    expiresAt: 20_000,
    notBefore: null,
    ...given,
  })

/** One input and what it did. */
export interface Taken extends Transition {
  before: ExecutionState
  input: Input
  context: Context
}

/** Applies the steps one after the other, time passing from `startsAt`; answers what each did, and the state at the end. */
export function run(fresh: ExecutionState, sequence: Step[], startsAt = 0): { taken: Taken[]; end: ExecutionState } {
  const taken: Taken[] = []
  let state = fresh
  let now = startsAt
  for (const step of sequence) {
    now += step.waitMs
    const context: Context = { now, backoff: BACKOFF, random: () => 0.5 }
    const made = transition(frozen(state), step.input, context)
    taken.push({ ...made, before: state, input: step.input, context })
    state = made.state
  }
  return { taken, end: state }
}

/** A state that `transition` wrote to would throw. */
function frozen<T>(value: T): T {
  if (typeof value === 'object' && value !== null) for (const part of Object.values(value)) frozen(part)
  return Object.freeze(value)
}

const ascends = (numbers: number[]): boolean =>
  numbers.every((each, index) => index === 0 || (numbers[index - 1] ?? 0) < each)

/** What a legal state is, whatever has happened to it: the names of what it violates. */
export function faultsOf(state: ExecutionState): string[] {
  const { status, attempt, handovers, silentAttempts, completedBefore } = state
  const isHandedOver = inFlight(status)
  // What runs may do so by its client's word alone: skipping forward is legal.
  const isClaimed = status === 'queued' || status === 'delivered'
  const wasHandedOver = handovers.some((handover) => handover.attempt === attempt)
  const legal: Record<string, boolean> = {
    'a deadline is there in flight, and only there': (state.deadline !== null) === isHandedOver,
    'what is queued or delivered has a session and a hand-over':
      !isClaimed || (state.epoch !== null && wasHandedOver && state.queuedAt !== null),
    'what is pending has neither': status !== 'pending' || (state.epoch === null && !wasHandedOver),
    'hand-overs are in the order of their attempts, none of one to come': handovers.every(
      (handover, index) => handover.attempt <= attempt && handover.attempt >= (handovers[index - 1]?.attempt ?? 1),
    ),
    'silent attempts are earlier ones, each once, or the newest one when it has ended':
      ascends(silentAttempts) &&
      silentAttempts.every((silent) => silent < attempt || (silent === attempt && isTerminal(status))),
    "an older attempt's completed waits only for what is in flight":
      completedBefore === null || isHandedOver || status === 'completed',
    "an older attempt's completed is of an older attempt":
      completedBefore === null || completedBefore.attempt < attempt,
    'only what is pending waits': state.notBefore === null || status === 'pending',
    'what is pending is not being cancelled': status !== 'pending' || state.cancelRequestedAt === null,
    'a reason belongs to a request': state.cancelReason === null || state.cancelRequestedAt !== null,
    'what is settled has an end, and only that': (state.completedAt !== null) === isSettled(status),
    'an outcome is of what is settled': isSettled(status) || (state.result === null && state.error === null),
    'what is delivered has its time': status !== 'delivered' || state.deliveredAt !== null,
    'what runs has its start': status !== 'running' || state.startedAt !== null,
  }
  return Object.keys(legal).filter((name) => !legal[name])
}
