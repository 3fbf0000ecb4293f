import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  type Context,
  type Input,
  inDoubt,
  newExecution,
  rank,
  transition,
} from '../../control/executions/lifecycle.ts'
import type { ExecutionState } from '../../db/executions.ts'
import { isSettled, isTerminal } from '../../schemas/executions.ts'
import { ReportStatus } from '../../schemas/messages.ts'

const epoch = fc.integer({ min: 1, max: 3 })
const journalId = fc.constantFrom(null, 'a', 'b')
const attempt = fc.integer({ min: 1, max: 3 })

const input: fc.Arbitrary<Input> = fc.oneof(
  fc.record({ type: fc.constant('claim' as const), epoch, journalId }),
  fc.record({ type: fc.constant('release' as const), epoch, attempt }),
  fc.record({ type: fc.constant('puback' as const), epoch, attempt }),
  fc.record({ type: fc.constant('session-ended' as const), epoch }),
  fc.record({ type: fc.constant('session-ready' as const), epoch, journalId, statusSeen: fc.boolean() }),
  fc.record({
    type: fc.constant('report' as const),
    journalId,
    report: fc.record({
      status: fc.constantFrom(...ReportStatus.options),
      attempt: fc.option(attempt, { nil: undefined }),
    }),
  }),
  fc.constant<Input>({ type: 'cancel', reason: null }),
  fc.constant<Input>({ type: 'expire' }),
  fc.constant<Input>({ type: 'timeout' }),
  fc.constant<Input>({ type: 'due' }),
  fc.constant<Input>({ type: 'abandon' }),
)

const steps = fc.array(fc.record({ input, waitMs: fc.constantFrom(0, 1, 500, 2000) }), { maxLength: 30 })
const delivery = fc.constantFrom('at_least_once' as const, 'at_most_once' as const)

function run(
  kind: ExecutionState['delivery'],
  sequence: { input: Input; waitMs: number }[],
  each: (before: ExecutionState, after: ExecutionState, taken: Input) => void,
): ExecutionState {
  let now = 0
  let state = newExecution({
    delivery: kind,
    maxRetries: 2,
    startTimeoutSeconds: 1,
    timeoutSeconds: 1,
    expiresAt: 20_000,
    notBefore: null,
  })
  for (const step of sequence) {
    now += step.waitMs
    const context: Context = { now, backoff: { baseSeconds: 1, maxSeconds: 4 }, random: () => 0.5 }
    const next = transition(state, step.input, context).state
    each(state, next, step.input)
    state = next
  }
  return state
}

/** (attempt, rank) as one number. */
const position = (state: ExecutionState): number => state.attempt * 100 + rank(state.status)

test('a position only grows, but for the release of an unforwarded first claim', () => {
  fc.assert(
    fc.property(delivery, steps, (kind, sequence) => {
      run(kind, sequence, (before, after, taken) => {
        if (position(after) >= position(before)) return
        expect(taken.type).toBe('release')
        expect(before.status).toBe('queued')
        expect(after.status).toBe('pending')
        expect(before.handovers.filter((handover) => handover.attempt === before.attempt)).toHaveLength(1)
      })
    }),
    { numRuns: 5000 },
  )
})

test('a terminal status never changes', () => {
  fc.assert(
    fc.property(delivery, steps, (kind, sequence) => {
      run(kind, sequence, (before, after) => {
        if (isTerminal(before.status)) expect(after).toBe(before)
      })
    }),
    { numRuns: 5000 },
  )
})

test('at_most_once never gets a second attempt, and no attempt beyond the retries is ever made', () => {
  fc.assert(
    fc.property(delivery, steps, (kind, sequence) => {
      const end = run(kind, sequence, () => undefined)
      expect(end.attempt).toBeLessThanOrEqual(kind === 'at_most_once' ? 1 : 3)
    }),
    { numRuns: 5000 },
  )
})

test('completed is only what a client reported, and the server withdraws nothing that may have run', () => {
  fc.assert(
    fc.property(delivery, steps, (kind, sequence) => {
      let reported = false
      run(kind, sequence, (before, after, taken) => {
        if (taken.type === 'report' && taken.report.status === 'completed') reported = true
        if (after.status === 'completed') expect(reported).toBe(true)
        const withdrawn = (after.status === 'cancelled' || after.status === 'expired') && after.status !== before.status
        if (!withdrawn || taken.type === 'report') return
        expect(inDoubt(before)).toBe(false)
        // Nobody has this attempt: it was pending, or the claim in hand was never forwarded.
        expect(before.status === 'pending' || taken.type === 'release').toBe(true)
      })
    }),
    { numRuns: 5000 },
  )
})

test('time alone settles every state', () => {
  fc.assert(
    fc.property(delivery, steps, (kind, sequence) => {
      let state = run(kind, sequence, () => undefined)
      let now = 1_000_000
      // Each attempt needs at most: due, expire or time out.
      for (let round = 0; round < 12 && !isSettled(state.status); round++) {
        now += 1_000_000
        const context: Context = { now, backoff: { baseSeconds: 1, maxSeconds: 4 }, random: () => 0.5 }
        for (const type of ['due', 'timeout', 'expire'] as const) state = transition(state, { type }, context).state
      }
      expect(isSettled(state.status)).toBe(true)
    }),
    { numRuns: 5000 },
  )
})

test('every move has its event, and an unsettled state has the timer that ends it', () => {
  fc.assert(
    fc.property(delivery, steps, (kind, sequence) => {
      let now = 0
      let state = newExecution({
        delivery: kind,
        maxRetries: 2,
        startTimeoutSeconds: 1,
        timeoutSeconds: 1,
        expiresAt: 20_000,
        notBefore: null,
      })
      for (const step of sequence) {
        now += step.waitMs
        const moved = transition(state, step.input, {
          now,
          backoff: { baseSeconds: 1, maxSeconds: 4 },
          random: () => 0.5,
        })
        if (position(moved.state) !== position(state)) expect(moved.events.length).toBeGreaterThan(0)
        state = moved.state
        const inFlight = ['queued', 'delivered', 'running'].includes(state.status)
        expect(state.deadline !== null).toBe(inFlight)
        if (isSettled(state.status)) expect(state.completedAt).not.toBeNull()
      }
    }),
    { numRuns: 5000 },
  )
})
