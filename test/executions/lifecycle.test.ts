import { describe, expect, test } from 'vitest'
import type { Context } from '../../control/executions/endings.ts'
import { type Input, transition } from '../../control/executions/lifecycle.ts'
import { newExecution } from '../../control/executions/states.ts'
import type { ExecutionState } from '../../db/executions.ts'
import type { Report } from '../../schemas/messages.ts'

const context: Context = { now: 1000, backoff: { baseSeconds: 0, maxSeconds: 0 }, random: () => 0 }

function fresh(delivery: 'at_least_once' | 'at_most_once', over: Partial<ExecutionState> = {}): ExecutionState {
  return {
    ...newExecution({
      delivery,
      maxRetries: 1,
      startTimeoutSeconds: 10,
      timeoutSeconds: 20,
      expiresAt: 1_000_000,
      notBefore: null,
    }),
    ...over,
  }
}

/** Applies inputs one after the other. */
const applied = (state: ExecutionState, ...inputs: Input[]): ExecutionState =>
  inputs.reduce((current, input) => transition(current, input, context).state, state)

const claim = (epoch = 1, journalId: string | null = null): Input => ({ type: 'claim', epoch, journalId })
const puback = (epoch = 1, attempt = 1): Input => ({ type: 'puback', epoch, attempt })
const release = (epoch = 1, attempt = 1): Input => ({ type: 'release', epoch, attempt })
const say = (report: Report, journalId: string | null = null): Input => ({ type: 'report', report, journalId })
const ready = (epoch: number, journalId: string | null, statusSeen = journalId !== null): Input => ({
  type: 'session-ready',
  epoch,
  journalId,
  statusSeen,
})
const cancel: Input = { type: 'cancel', reason: null }
/** The deadline has passed. */
const timeUp = (state: ExecutionState): ExecutionState =>
  transition(state, { type: 'timeout' }, { ...context, now: 1_000_000_000 }).state
const expire = (state: ExecutionState): ExecutionState =>
  transition(state, { type: 'expire' }, { ...context, now: 2_000_000 }).state

describe('the straight way', () => {
  test('pending, queued, delivered, running, completed', () => {
    const state = fresh('at_most_once')
    expect(applied(state, claim()).status).toBe('queued')
    expect(applied(state, claim(), puback()).status).toBe('delivered')
    expect(applied(state, claim(), puback(), say({ status: 'running' })).status).toBe('running')
    const done = applied(
      state,
      claim(),
      puback(),
      say({ status: 'running' }),
      say({ status: 'completed', result: { n: 1 } }),
    )
    expect(done).toMatchObject({ status: 'completed', result: { n: 1 }, completedAt: 1000, deadline: null })
  })

  test('skipping forward is legal: a report overtakes the PUBACK', () => {
    const done = applied(fresh('at_most_once'), claim(), say({ status: 'completed' }))
    expect(done.status).toBe('completed')
    expect(applied(done, puback())).toBe(done)
  })
})

describe('what moves nothing', () => {
  const cases: [string, ExecutionState, Input][] = [
    ['a claim before it is due', fresh('at_most_once', { notBefore: 5000 }), claim()],
    ['a claim after the expiry', fresh('at_most_once', { expiresAt: 1000 }), claim()],
    ['a second claim', applied(fresh('at_most_once'), claim()), claim(2)],
    ['a PUBACK of another session', applied(fresh('at_most_once'), claim()), puback(2)],
    ['a PUBACK of another attempt', applied(fresh('at_most_once'), claim()), puback(1, 2)],
    ['a release of another session', applied(fresh('at_most_once'), claim()), release(2)],
    ['a release of another attempt', timeUp(applied(fresh('at_least_once'), claim())), release(1, 1)],
    [
      'a release of another attempt that the same session has claimed',
      applied(timeUp(applied(fresh('at_least_once'), claim())), claim()),
      release(1, 1),
    ],
    ['a release of a delivered one', applied(fresh('at_most_once'), claim(), puback()), release()],
    ['a release of a redelivery', applied(fresh('at_least_once'), claim(), ready(2, null)), release(2)],
    ['accepted', applied(fresh('at_most_once'), claim()), say({ status: 'accepted' })],
    ['running twice', applied(fresh('at_most_once'), claim(), say({ status: 'running' })), say({ status: 'running' })],
    [
      'a report after the end',
      applied(fresh('at_most_once'), claim(), say({ status: 'failed' })),
      say({ status: 'completed' }),
    ],
    [
      'a report of an attempt that does not exist',
      applied(fresh('at_most_once'), claim()),
      say({ status: 'completed', attempt: 2 }),
    ],
    ['an expiry of a queued one', applied(fresh('at_most_once'), claim()), { type: 'expire' }],
    ['an expiry before its time', fresh('at_most_once'), { type: 'expire' }],
    ['a time-out before its time', applied(fresh('at_most_once'), claim()), { type: 'timeout' }],
    ['the end of another session', applied(fresh('at_most_once'), claim()), { type: 'session-ended', epoch: 2 }],
    [
      'the end of a session with a journal',
      applied(fresh('at_most_once'), claim(1, 'j')),
      { type: 'session-ended', epoch: 1 },
    ],
    ['a cancel of a settled one', applied(fresh('at_most_once'), claim(), say({ status: 'failed' })), cancel],
  ]
  test.each(cases)('%s', (_name, state, input) => {
    expect(transition(state, input, context).state).toBe(state)
  })
})

describe('release (rule 6)', () => {
  test('an unforwarded first claim goes back to pending, and nobody was handed it', () => {
    const state = fresh('at_most_once')
    expect(applied(state, claim(), release())).toEqual(state)
  })

  test('cancelled or expired meanwhile: withdrawn, since the client never had it', () => {
    expect(applied(fresh('at_most_once'), claim(), cancel, release()).status).toBe('cancelled')
    const late = transition(applied(fresh('at_most_once'), claim()), release(), { ...context, now: 2_000_000 })
    expect(late.state.status).toBe('expired')
  })
})

describe('the end of a session and the next one (rules 5, 6)', () => {
  test('at_most_once without a journal: nobody can tell, at once', () => {
    expect(applied(fresh('at_most_once'), claim(), { type: 'session-ended', epoch: 1 }).status).toBe('outcome_unknown')
  })

  test('at_most_once with the same journal is handed over again, with another it is unknown', () => {
    const lost = applied(fresh('at_most_once'), claim(1, 'j'), { type: 'session-ended', epoch: 1 })
    expect(lost.status).toBe('queued')
    expect(transition(lost, ready(2, 'j'), context)).toMatchObject({
      effect: 'send-command',
      state: { status: 'queued', epoch: 2 },
    })
    expect(applied(lost, ready(2, 'other')).status).toBe('outcome_unknown')
  })

  test('before the status of the new session came, a recorded journal may still return', () => {
    const lost = applied(fresh('at_most_once'), claim(1, 'j'))
    expect(applied(lost, ready(2, null, false))).toBe(lost)
    expect(applied(lost, ready(2, null, true)).status).toBe('outcome_unknown')
  })

  test('at_least_once is handed over again to whoever comes; delivered work waits', () => {
    const lost = applied(fresh('at_least_once'), claim())
    expect(transition(lost, ready(2, null), context).effect).toBe('send-command')
    const delivered = applied(fresh('at_most_once'), claim(), puback())
    expect(applied(delivered, { type: 'session-ended', epoch: 1 }, ready(2, null, true))).toBe(delivered)
  })

  test('a flapping client does not make the record grow', () => {
    let state = applied(fresh('at_least_once'), claim())
    for (let epoch = 2; epoch < 100; epoch++) state = applied(state, ready(epoch, null))
    expect(state.handovers).toHaveLength(2)
  })
})

describe('time (rules 1, 5)', () => {
  test('at_most_once: unknown, whether it was started or not', () => {
    expect(timeUp(applied(fresh('at_most_once'), claim()))).toMatchObject({
      status: 'outcome_unknown',
      error: { code: 'START_TIMEOUT' },
    })
    expect(timeUp(applied(fresh('at_most_once'), claim(), puback())).status).toBe('outcome_unknown')
    expect(timeUp(applied(fresh('at_most_once'), claim(), say({ status: 'running' })))).toMatchObject({
      error: { code: 'TIMEOUT' },
    })
  })

  test('the start timeout counts from the first claim of an attempt: neither a redelivery nor a PUBACK moves it', () => {
    const first = applied(fresh('at_least_once'), claim())
    expect(first.deadline).toBe(context.now + 10_000)
    const later = { ...context, now: context.now + 5000 }
    const redelivered = transition(first, ready(2, null), later).state
    expect(redelivered.deadline).toBe(first.deadline)
    expect(transition(redelivered, puback(2), later).state.deadline).toBe(first.deadline)
    expect(transition(redelivered, say({ status: 'running' }), later).state.deadline).toBe(later.now + 20_000)
  })

  test('at_least_once: the next attempt, then failed', () => {
    const second = timeUp(applied(fresh('at_least_once'), claim()))
    expect(second).toMatchObject({ status: 'pending', attempt: 2, silentAttempts: [1] })
    expect(timeUp(applied(second, claim(2)))).toMatchObject({ status: 'failed', attempt: 2 })
  })

  test('after a cancel request there is no next attempt', () => {
    expect(timeUp(applied(fresh('at_least_once'), claim(), puback(), cancel)).status).toBe('outcome_unknown')
  })

  test('an expired retry of an attempt that ended silently is in doubt', () => {
    const second = timeUp(applied(fresh('at_least_once'), claim()))
    expect(expire(second).status).toBe('outcome_unknown')
    const told = applied(fresh('at_least_once'), claim(), say({ status: 'failed' }))
    expect(told).toMatchObject({ status: 'pending', attempt: 2, silentAttempts: [] })
    expect(expire(told).status).toBe('expired')
  })

  test('what failed for good without a word of the client is in doubt when it is retried', () => {
    const last = applied(fresh('at_least_once', { maxRetries: 0 }), claim(1, 'j'), say({ status: 'running' }))
    const retry: Input = { type: 'retry', ttlSeconds: 1 }
    const interrupted = say({ status: 'outcome_unknown', error: { code: 'AGENT_INTERRUPTED', message: 'killed' } }, 'j')
    for (const silent of [timeUp(last), applied(last, interrupted)]) {
      expect(silent.status).toBe('failed')
      expect(expire(applied(silent, retry)).status).toBe('outcome_unknown')
    }
    const told = applied(last, say({ status: 'failed', error: { code: 'TIMEOUT', message: 'by the client' } }, 'j'))
    expect(expire(applied(told, retry)).status).toBe('expired')
  })

  test('another run instead of a word about the outcome is permitted only where nobody can tell', () => {
    const word: Input = { type: 'resolve', outcome: 'retry', ttlSeconds: 1, note: 'nothing was printed' }
    const unknown = timeUp(applied(fresh('at_most_once'), claim(), puback()))
    expect(unknown.status).toBe('outcome_unknown')
    const { state, events } = transition(unknown, word, context)
    expect(state).toMatchObject({ status: 'pending', attempt: 2, silentAttempts: [1], expiresAt: 2000 })
    expect(events.map(({ type, attempt }) => [type, attempt])).toEqual([
      ['execution.resolved', 1],
      ['execution.retried', 2],
    ])
    // A late report was faster: what it said stands, though a retry would be permitted.
    for (const status of ['failed', 'completed'] as const) {
      const late = applied(unknown, say({ status }))
      expect(late.status).toBe(status)
      expect(transition(late, word, context)).toEqual({ state: late, events: [] })
    }
  })

  test('the wait before the next attempt is a random part of a doubling bound', () => {
    const slow: Context = { now: 0, backoff: { baseSeconds: 4, maxSeconds: 10 }, random: () => 0.5 }
    const failed = (state: ExecutionState) =>
      transition(state, say({ status: 'failed', attempt: state.attempt }), slow).state
    const state = fresh('at_least_once', { maxRetries: 9 })
    expect(failed({ ...state, status: 'running' }).notBefore).toBe(2000)
    expect(failed({ ...state, status: 'running', attempt: 2 }).notBefore).toBe(4000)
    expect(failed({ ...state, status: 'running', attempt: 5 }).notBefore).toBe(5000)
  })
})

describe('older attempts (rule 2)', () => {
  const second = applied(timeUp(applied(fresh('at_least_once'), claim())), claim(2))

  test('completed is kept and decides when the newest would settle otherwise', () => {
    const kept = applied(second, say({ status: 'completed', attempt: 1, result: 'first' }))
    expect(kept.status).toBe('queued')
    expect(applied(kept, say({ status: 'failed', attempt: 2 }))).toMatchObject({ status: 'completed', result: 'first' })
    expect(timeUp(kept).status).toBe('completed')
    expect(applied(kept, release(2, 2)).status).toBe('completed')
  })

  test('completed settles a pending newest at once', () => {
    const pending = timeUp(applied(fresh('at_least_once'), claim()))
    expect(applied(pending, say({ status: 'completed', attempt: 1 })).status).toBe('completed')
  })

  test('another final word ends the doubt, and settles one that was withdrawn unclaimed', () => {
    const pending = timeUp(applied(fresh('at_least_once'), claim()))
    expect(applied(second, say({ status: 'failed', attempt: 1 })).silentAttempts).toEqual([])
    expect(applied(expire(pending), say({ status: 'failed', attempt: 1 })).status).toBe('failed')
  })

  test('without an attempt, only completed counts after a second hand-over', () => {
    expect(applied(second, say({ status: 'failed' }))).toBe(second)
    expect(applied(second, say({ status: 'completed' })).status).toBe('completed')
  })
})

describe('cancel (rule 8)', () => {
  test('pending: at once', () => {
    expect(applied(fresh('at_most_once'), cancel)).toMatchObject({ status: 'cancelled', cancelRequestedAt: 1000 })
  })

  test('handed over: asked, not sent again, and the report decides', () => {
    const asked = transition(applied(fresh('at_least_once'), claim()), cancel, context)
    expect(asked).toMatchObject({ effect: 'send-cancel', state: { status: 'queued', cancelRequestedAt: 1000 } })
    expect(transition(asked.state, ready(2, null), context).effect).toBe('send-cancel')
    expect(applied(asked.state, say({ status: 'completed' })).status).toBe('completed')
    expect(applied(asked.state, say({ status: 'cancelled' })).status).toBe('cancelled')
  })

  test('cancelled because it had expired unacknowledged says so; one that somebody cancelled does not', () => {
    const late = { ...context, now: 2_000_000 }
    const queued = applied(fresh('at_most_once'), claim(1, 'j'))
    expect(transition(queued, ready(2, 'j'), late).effect).toBe('send-cancel')
    const { state, events } = transition(queued, say({ status: 'cancelled' }, 'j'), late)
    expect(state).toMatchObject({ status: 'cancelled', error: { code: 'EXPIRED' } })
    expect(events).toMatchObject([{ type: 'execution.cancelled', data: { error: { code: 'EXPIRED' } } }])
    const asked = applied(queued, cancel)
    expect(transition(asked, say({ status: 'cancelled' }, 'j'), late).state.error).toBeNull()
    const acknowledged = applied(queued, puback())
    expect(transition(acknowledged, say({ status: 'cancelled' }, 'j'), late).state.error).toBeNull()
  })

  test('in doubt: cancelled is believed only under the journal of every hand-over', () => {
    const elsewhere = applied(fresh('at_least_once'), claim(1, 'j'), ready(2, 'other'))
    expect(applied(elsewhere, say({ status: 'cancelled' }, 'other')).status).toBe('outcome_unknown')
    const same = applied(timeUp(applied(fresh('at_least_once'), claim(1, 'j'))), claim(2, 'j'))
    expect(applied(same, say({ status: 'cancelled', attempt: 2 }, 'j')).status).toBe('cancelled')
    expect(applied(same, say({ status: 'cancelled', attempt: 2 }, null)).status).toBe('outcome_unknown')
  })

  test('an unknown outcome is asked about when the journal of the hand-over returns', () => {
    const unknown = timeUp(applied(fresh('at_most_once'), claim(1, 'j')))
    expect(transition(unknown, ready(2, 'j'), context).effect).toBe('send-cancel')
    expect(transition(unknown, ready(2, 'other'), context).effect).toBeUndefined()
    expect(applied(unknown, say({ status: 'completed' })).status).toBe('completed')
  })

  test('an outcome that the server finds unknown is asked about; one that the client reported is not', () => {
    const late = { ...context, now: 1_000_000_000 }
    const queued = applied(fresh('at_most_once'), claim(1, 'j'))
    expect(transition(queued, { type: 'timeout' }, late).effect).toBe('send-cancel')
    const second = timeUp(applied(fresh('at_least_once'), claim(1, 'j')))
    expect(transition(second, { type: 'expire' }, late).effect).toBe('send-cancel')
    expect(transition(second, cancel, context)).toMatchObject({
      effect: 'send-cancel',
      state: { status: 'outcome_unknown' },
    })
    const unforwarded = applied(second, claim(2, 'j'), cancel)
    expect(transition(unforwarded, release(2, 2), context)).toMatchObject({
      effect: 'send-cancel',
      state: { status: 'outcome_unknown' },
    })
    expect(transition(queued, say({ status: 'outcome_unknown' }, 'j'), context).effect).toBeUndefined()
    const done = applied(second, claim(2, 'j'), say({ status: 'completed', attempt: 1 }))
    expect(transition(applied(done, cancel), { type: 'timeout' }, late).effect).toBeUndefined()
  })
})
