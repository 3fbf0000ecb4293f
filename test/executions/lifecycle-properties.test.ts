import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Context } from '../../control/executions/endings.ts'
import { transition } from '../../control/executions/lifecycle.ts'
import { inDoubt, rank } from '../../control/executions/states.ts'
import type { ExecutionState } from '../../db/executions.ts'
import { isSettled, isTerminal } from '../../schemas/executions.ts'
import { BACKOFF, delivery, faultsOf, freshExecution, run, steps, type Taken } from './support/inputs.ts'

/** (attempt, rank) as one number. */
const position = (state: ExecutionState): number => state.attempt * 100 + rank(state.status)

const isPrincipals = ({ input }: Taken): boolean => input.type === 'retry' || input.type === 'resolve'

const permitsAnother = ({ input, before, state }: Taken): boolean =>
  state !== before && (input.type === 'retry' || (input.type === 'resolve' && input.outcome === 'retry'))

/** Whatever is done in whatever order, to either delivery class. */
const always = (holds: (taken: Taken[], end: ExecutionState, kind: ExecutionState['delivery']) => void): void =>
  fc.assert(
    fc.property(delivery, steps, (kind, sequence) => {
      const { taken, end } = run(freshExecution(kind), sequence)
      holds(taken, end, kind)
    }),
    { numRuns: 5000 },
  )

test('every sequence of reports, time-outs, cancels, reconnects and principals leaves a legal state', () => {
  always((taken) => {
    for (const { state, input } of taken)
      expect({ after: input, faults: faultsOf(state) }).toEqual({ after: input, faults: [] })
  })
})

test('a position only grows, but for the release of an unforwarded first claim', () => {
  always((taken) => {
    for (const { before, state, input } of taken) {
      if (position(state) >= position(before)) continue
      expect(input.type).toBe('release')
      expect(before.status).toBe('queued')
      expect(state.status).toBe('pending')
      expect(before.handovers.filter((handover) => handover.attempt === before.attempt)).toHaveLength(1)
    }
  })
})

test('a terminal status never changes, but when a principal permits another attempt', () => {
  always((taken) => {
    for (const each of taken)
      if (isTerminal(each.before.status) && !isPrincipals(each)) expect(each.state).toBe(each.before)
  })
})

test('at_most_once gets no second attempt without a principal, and at_least_once none beyond its retries', () => {
  always((taken, end, kind) => {
    const permitted = taken.filter(permitsAnother).length
    const automatic = kind === 'at_most_once' ? 0 : end.maxRetries
    expect(end.attempt).toBeLessThanOrEqual(1 + automatic + permitted)
  })
})

test('completed is only what a client reported or a principal said, and the server withdraws nothing that may have run', () => {
  always((taken) => {
    let said = false
    for (const { before, state, input } of taken) {
      said ||= input.type === 'report' && input.report.status === 'completed'
      said ||= input.type === 'resolve' && input.outcome === 'completed' && state !== before
      if (state.status === 'completed') expect(said).toBe(true)
      const withdrawn = (state.status === 'cancelled' || state.status === 'expired') && state.status !== before.status
      if (!withdrawn || input.type === 'report') continue
      expect(inDoubt(before)).toBe(false)
      // Nobody has this attempt: it was pending, or the claim in hand was never forwarded.
      expect(before.status === 'pending' || input.type === 'release').toBe(true)
    }
  })
})

test('a report that comes a second time moves nothing', () => {
  always((taken) => {
    for (const { state, input, context } of taken) {
      if (input.type !== 'report') continue
      const again = transition(state, input, context)
      expect(position(again.state)).toBe(position(state))
      expect(again.state.status).toBe(state.status)
      expect(again.events.length).toBeGreaterThan(0)
    }
  })
})

test('time alone settles every state', () => {
  always((_taken, end) => {
    let state = end
    let now = 10_000_000_000
    // Each attempt needs at most: due, expire or time out.
    for (let round = 0; round < 12 && !isSettled(state.status); round++) {
      now += 1_000_000_000
      const context: Context = { now, backoff: BACKOFF, random: () => 0.5 }
      for (const type of ['due', 'timeout', 'expire'] as const) state = transition(state, { type }, context).state
    }
    expect(isSettled(state.status)).toBe(true)
  })
})

test('every move and every report has its event', () => {
  always((taken) => {
    for (const { before, state, input, events } of taken) {
      const moved = position(state) !== position(before) || state.status !== before.status
      if (moved || input.type === 'report') expect(events.length).toBeGreaterThan(0)
    }
  })
})
