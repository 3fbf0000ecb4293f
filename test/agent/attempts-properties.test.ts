import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  type Attempts,
  cancel,
  finish,
  giveUp,
  isOutcome,
  markReported,
  mayStart,
  needsReport,
  type OutcomeStatus,
  receive,
  restart,
  start,
} from '../../agent/attempts.ts'

type Event =
  | { kind: 'receive' | 'start' | 'expire' | 'told'; attempt: number }
  | { kind: 'cancel'; attempt: number; own: boolean }
  | { kind: 'finish'; attempt: number; status: OutcomeStatus }
  | { kind: 'crash' }

const attempt = fc.integer({ min: 1, max: 4 })
const status = fc.constantFrom<OutcomeStatus>('completed', 'failed', 'rejected', 'cancelled')
const events: fc.Arbitrary<Event[]> = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constantFrom('receive', 'start', 'expire', 'told'), attempt }),
    fc.record({ kind: fc.constant('start'), attempt }),
    fc.record({ kind: fc.constant('cancel'), attempt, own: fc.boolean() }),
    fc.record({ kind: fc.constant('finish'), attempt, status }),
    fc.record({ kind: fc.constant('crash') }),
  ) as fc.Arbitrary<Event>,
  { maxLength: 40 },
)

/** What the device does with an event; one that cannot happen now does not. */
function apply(attempts: Attempts, event: Event): Attempts {
  switch (event.kind) {
    case 'receive':
      return receive(attempts, event.attempt)
    case 'cancel':
      return cancel(attempts, event.attempt, event.own).attempts
    case 'start':
      return mayStart(attempts, event.attempt) ? start(attempts, event.attempt) : attempts
    case 'expire':
      return mayStart(attempts, event.attempt) ? giveUp(attempts, event.attempt, { status: 'expired' }) : attempts
    case 'finish':
      return stateOf(attempts, event.attempt) === 'started'
        ? finish(attempts, event.attempt, { status: event.status })
        : attempts
    case 'told':
      return markReported(attempts, event.attempt)
    case 'crash':
      return restart(attempts)
  }
}

const stateOf = (attempts: Attempts, n: number) => attempts.find((entry) => entry.attempt === n)?.state

/** The histories of 4 attempts: every state that one had, in order. */
function histories(list: Event[]): Attempts[] {
  const all: Attempts[] = [[]]
  for (const event of list) all.push(apply(all.at(-1) as Attempts, event))
  return all
}

/** Attempts that an event started. */
function startsIn(all: Attempts[]): { attempt: number; before: Attempts }[] {
  return all.slice(1).flatMap((now, index) => {
    const before = all[index] as Attempts
    return now
      .filter((entry) => entry.state === 'started' && stateOf(before, entry.attempt) !== 'started')
      .map((entry) => ({ attempt: entry.attempt, before }))
  })
}

const holds = (property: (all: Attempts[]) => void): void =>
  fc.assert(
    fc.property(events, (list) => property(histories(list))),
    { numRuns: 2000 },
  )

test('an (id, attempt) starts at most once', () => {
  holds((all) => {
    const started = startsIn(all).map((entry) => entry.attempt)
    expect(new Set(started).size).toBe(started.length)
  })
})

test('never two attempts of an id run at a time', () => {
  holds((all) => {
    for (const now of all) expect(now.filter((entry) => entry.state === 'started').length).toBeLessThan(2)
  })
})

test('nothing starts after an older attempt completed, nor after its own cancel or a newer attempt', () => {
  holds((all) => {
    for (const { attempt: n, before } of startsIn(all)) {
      expect(before.filter((entry) => entry.attempt < n && entry.state === 'completed')).toEqual([])
      expect(
        before.filter((entry) => entry.attempt > n && entry.state !== 'cancelled' && entry.state !== 'outcome_unknown'),
      ).toEqual([])
    }
  })
})

test('an outcome never changes', () => {
  holds((all) => {
    for (const [index, now] of all.slice(1).entries()) {
      for (const entry of all[index] as Attempts) {
        if (isOutcome(entry.state) || entry.state === 'superseded')
          expect(stateOf(now, entry.attempt)).toBe(entry.state)
      }
    }
  })
})

test('cancelled and expired are only said of an id of which no older attempt completed, runs, or may have run', () => {
  holds((all) => {
    for (const [index, now] of all.slice(1).entries()) {
      const before = all[index] as Attempts
      const withdrawn = now.filter(
        (entry) =>
          (entry.state === 'cancelled' || entry.state === 'expired') &&
          stateOf(before, entry.attempt) !== entry.state &&
          stateOf(before, entry.attempt) !== 'started',
      )
      for (const { attempt: n } of withdrawn) {
        const older = now.filter((entry) => entry.attempt < n).map((entry) => entry.state)
        expect(older.filter((state) => ['completed', 'started', 'waiting', 'outcome_unknown'].includes(state))).toEqual(
          [],
        )
      }
    }
  })
})

test('everything that arrived ends, and every outcome is reported in the end', () => {
  holds((all) => {
    let attempts = all.at(-1) as Attempts
    for (let turn = 0; turn < 20; turn++) {
      const running = attempts.find((entry) => entry.state === 'started')
      const next = attempts.find((entry) => mayStart(attempts, entry.attempt))
      if (running) attempts = finish(attempts, running.attempt, { status: 'failed' })
      else if (next) attempts = start(attempts, next.attempt)
    }
    for (const entry of attempts.filter(needsReport)) attempts = markReported(attempts, entry.attempt)
    expect(attempts.filter((entry) => !entry.reported)).toEqual([])
  })
})

test('an unchanged attempt stays the same object, so that the journal writes only what changed', () => {
  holds((all) => {
    for (const [index, now] of all.slice(1).entries()) {
      for (const entry of all[index] as Attempts) {
        const same = now.find((other) => JSON.stringify(other) === JSON.stringify(entry))
        if (same) expect(same).toBe(entry)
      }
    }
  })
})
