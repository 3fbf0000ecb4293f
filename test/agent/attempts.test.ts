import { expect, test } from 'vitest'
import {
  type Attempts,
  cancel,
  finish,
  giveUp,
  markReported,
  mayStart,
  needsReport,
  type Outcome,
  receive,
  restart,
  start,
} from '../../agent/attempts.ts'

const COMPLETED: Outcome = { status: 'completed', result: 'r' }
const FAILED: Outcome = { status: 'failed', error: { code: 'X', message: 'x' } }
const EXPIRED: Outcome = { status: 'expired' }

type Step = (attempts: Attempts) => Attempts
const arrives =
  (attempt: number): Step =>
  (attempts) =>
    receive(attempts, attempt)
const starts =
  (attempt: number): Step =>
  (attempts) =>
    start(attempts, attempt)
const ends =
  (attempt: number, outcome: Outcome): Step =>
  (attempts) =>
    finish(attempts, attempt, outcome)
const late =
  (attempt: number): Step =>
  (attempts) =>
    giveUp(attempts, attempt, EXPIRED)
const ownCancel =
  (attempt: number): Step =>
  (attempts) =>
    cancel(attempts, attempt, true).attempts
const foreignCancel =
  (attempt: number): Step =>
  (attempts) =>
    cancel(attempts, attempt, false).attempts
const told =
  (attempt: number): Step =>
  (attempts) =>
    markReported(attempts, attempt)
const after = (...steps: Step[]): Attempts => steps.reduce<Attempts>((attempts, step) => step(attempts), [])

/** `1 completed` for an outcome to report, `1 completed.` for a reported one. */
const shown = (attempts: Attempts): string =>
  attempts
    .map((entry) => `${entry.attempt} ${entry.state}${entry.reported && entry.state !== 'superseded' ? '.' : ''}`)
    .join(', ')

test.each([
  ['a command', [arrives(1)], '1 accepted'],
  ['a redelivery of an accepted one', [arrives(1), arrives(1)], '1 accepted'],
  ['a redelivery of a running one', [arrives(1), starts(1), arrives(1)], '1 started'],
  ['a redelivery of a reported outcome', [arrives(1), starts(1), ends(1, FAILED), told(1), arrives(1)], '1 failed'],
  ['a newer attempt before the start', [arrives(1), arrives(2)], '1 superseded, 2 accepted'],
  ['an older attempt after a newer', [arrives(2), arrives(1)], '1 superseded, 2 accepted'],
  ['a superseded attempt again', [arrives(1), arrives(2), arrives(1)], '1 superseded, 2 accepted'],
  ['a newer attempt during the run', [arrives(1), starts(1), arrives(2)], '1 started, 2 accepted'],
  [
    'two newer ones during the run',
    [arrives(1), starts(1), arrives(2), arrives(3)],
    '1 started, 2 superseded, 3 accepted',
  ],
  ['a newer one after completion', [arrives(1), starts(1), ends(1, COMPLETED), arrives(2)], '1 completed, 2 completed'],
  ['a newer one after failure', [arrives(1), starts(1), ends(1, FAILED), arrives(2)], '1 failed, 2 accepted'],
  [
    'completion while a newer waits',
    [arrives(1), starts(1), arrives(2), ends(1, COMPLETED)],
    '1 completed, 2 completed',
  ],
  ['failure while a newer waits', [arrives(1), starts(1), arrives(2), ends(1, FAILED)], '1 failed, 2 accepted'],
  ['expiry', [arrives(1), late(1)], '1 expired'],
  [
    'expiry after an unknown outcome',
    [arrives(1), starts(1), restart, arrives(2), late(2)],
    '1 outcome_unknown, 2 outcome_unknown',
  ],
  ['a cancel before the start', [arrives(1), ownCancel(1)], '1 cancelled'],
  ['a cancel of a stranger, own journal', [ownCancel(1)], '1 cancelled'],
  ['its command afterwards', [ownCancel(1), told(1), arrives(1)], '1 cancelled'],
  ['a cancel of a stranger, another journal', [foreignCancel(1)], '1 outcome_unknown'],
  ['a cancel of a running one', [arrives(1), starts(1), ownCancel(1)], '1 started'],
  ['a cancel of an outcome', [arrives(1), starts(1), ends(1, COMPLETED), told(1), ownCancel(1)], '1 completed'],
  ['a cancel of a newer one than the accepted', [arrives(1), ownCancel(2)], '1 superseded, 2 cancelled'],
  ['a foreign cancel of a newer one', [arrives(1), foreignCancel(2)], '1 superseded, 2 outcome_unknown'],
  ['a cancel of an older one', [arrives(2), ownCancel(1)], '1 cancelled, 2 accepted'],
  [
    'a cancel of a newer one after completion',
    [arrives(1), starts(1), ends(1, COMPLETED), ownCancel(2)],
    '1 completed, 2 completed',
  ],
  ['a cancel of a newer one during the run', [arrives(1), starts(1), arrives(2), ownCancel(2)], '1 started, 2 waiting'],
  [
    'and its completion',
    [arrives(1), starts(1), arrives(2), ownCancel(2), ends(1, COMPLETED)],
    '1 completed, 2 completed',
  ],
  ['and its failure', [arrives(1), starts(1), arrives(2), ownCancel(2), ends(1, FAILED)], '1 failed, 2 cancelled'],
  ['and a crash', [arrives(1), starts(1), ownCancel(2), restart], '1 outcome_unknown, 2 outcome_unknown'],
  [
    'a third while a second waits for the first',
    [arrives(1), starts(1), ownCancel(2), arrives(3), ends(1, COMPLETED)],
    '1 completed, 2 completed, 3 completed',
  ],
  [
    'a third that waits for the second, after a crash in the first',
    [arrives(1), starts(1), restart, arrives(2), starts(2), ownCancel(3), ends(2, FAILED)],
    '1 outcome_unknown, 2 failed, 3 outcome_unknown',
  ],
  ['a crash while accepted', [arrives(1), restart], '1 accepted'],
  ['a crash after the outcome', [arrives(1), starts(1), ends(1, FAILED), told(1), restart], '1 failed.'],
])('%s', (_, steps, expected) => {
  expect(shown(after(...steps))).toBe(expected)
})

test('a newer attempt is answered with the result of the older one', () => {
  expect(after(arrives(1), starts(1), arrives(2), ends(1, COMPLETED))[1]).toMatchObject({ result: 'r' })
  expect(after(arrives(1), starts(1), ends(1, COMPLETED), arrives(2))[1]).toMatchObject({ result: 'r' })
})

test('a running attempt holds back the others of its id', () => {
  const running = after(arrives(1), starts(1), arrives(2))
  expect([mayStart(running, 1), mayStart(running, 2)]).toEqual([false, false])
  expect(() => start(running, 2)).toThrow()
  expect(mayStart(finish(running, 1, FAILED), 2)).toBe(true)
})

test('a cancel aborts the run it withdraws: the attempt itself or an older one', () => {
  const running = after(arrives(1), arrives(2), starts(2))
  expect([1, 2, 3].map((attempt) => cancel(running, attempt, true).abort)).toEqual([undefined, 2, 2])
  expect(cancel(finish(running, 2, FAILED), 2, true).abort).toBeUndefined()
})

test('a superseded attempt has nothing to report', () => {
  expect(after(arrives(1), arrives(2), ownCancel(1), arrives(1)).filter(needsReport)).toEqual([])
})
