import { expect, test } from 'vitest'
import { type Evidence, judge } from './oracle.ts'

const ID = '0198c0de-0000-7000-8000-000000000001'
const PAIR = { commandId: ID, clientId: 'd1' }

/** A command that was handed over, run and reported by an agent: nothing to object to. */
function good(): Evidence {
  const event = (id: number, type: string, more: object = {}) => ({
    ...PAIR,
    id,
    type: `execution.${type}`,
    attempt: 1,
    reported: null,
    errorCode: null,
    ...more,
  })
  return {
    accepted: [{ id: ID, key: 'k1', delivery: 'at_most_once', total: 1 }],
    stored: [{ id: ID, key: 'k1' }],
    executions: [{ ...PAIR, status: 'completed', attempt: 1, delivery: 'at_most_once', errorCode: null }],
    events: [event(1, 'queued'), event(2, 'delivered'), event(3, 'running'), event(4, 'completed')],
    journals: [{ clientId: 'd1', id: ID, attempt: 1, state: 'completed', reported: true }],
    acknowledged: [],
    effects: [{ clientId: 'd1', id: ID, attempt: 1 }],
    devices: { plain: new Set(), lostMemory: new Set(), agentsWereKilled: false },
  }
}

test('a run in which all is well is not objected to', () => {
  expect(judge(good())).toEqual([])
})

const change = <T>(list: T[], index: number, fields: Partial<T>): T[] =>
  list.map((item, at) => (at === index ? { ...item, ...fields } : item))

const faults: [string, (evidence: Evidence) => Partial<Evidence>, RegExp][] = [
  ['an accepted command is gone', () => ({ stored: [], executions: [], events: [] }), /answered 201 and is not there/],
  [
    'an execution is missing',
    ({ accepted }) => ({ accepted: change(accepted, 0, { total: 2 }) }),
    /has 1 executions of 2/,
  ],
  [
    'it never settles',
    ({ executions }) => ({ executions: change(executions, 0, { status: 'running' }) }),
    /still running/,
  ],
  [
    'one key made two commands',
    ({ stored }) => ({ stored: [...stored, { id: 'other', key: 'k1' }] }),
    /made 2 commands/,
  ],
  [
    'a command that nobody sent',
    ({ stored }) => ({ stored: [...stored, { id: 'other', key: 'k2' }] }),
    /never confirmed/,
  ],
  [
    'an unknown outcome of an agent that was never killed',
    ({ executions, journals }) => ({
      executions: change(executions, 0, { status: 'outcome_unknown', errorCode: 'AGENT_INTERRUPTED' }),
      journals: change(journals, 0, { state: 'outcome_unknown' }),
    }),
    /nobody can see why/,
  ],
  [
    'an unknown outcome for want of a memory that is there',
    ({ executions }) => ({
      executions: change(executions, 0, { status: 'outcome_unknown', errorCode: 'HANDOVER_LOST' }),
    }),
    /nobody can see why/,
  ],
  [
    'a report that was acknowledged and is not there',
    ({ events }) => ({ events: events.slice(0, 3) }),
    /acknowledged as completed, and no event says so/,
  ],
  [
    'a report of a plain device that was acknowledged and is not there',
    () => ({ acknowledged: [{ clientId: 'd1', id: ID, attempt: 1, status: 'failed' }] }),
    /acknowledged as failed, and no event says so/,
  ],
  [
    'an unknown outcome of what may be done only once was written as failed',
    ({ executions, events, journals }) => ({
      executions: change(executions, 0, { status: 'failed' }),
      events: change(events, 3, { type: 'execution.failed' }),
      journals: change(journals, 0, { state: 'outcome_unknown' }),
    }),
    /acknowledged as outcome_unknown, and no event says so/,
  ],
  ['it happened twice', ({ effects }) => ({ effects: [...effects, ...effects] }), /happened 2 times/],
  [
    'an attempt happened that nobody permitted',
    ({ effects }) => ({ effects: change(effects, 0, { attempt: 2 }) }),
    /never handed over/,
  ],
  ['completed and never happened', () => ({ effects: [] }), /completed and never happened/],
  [
    'cancelled and happened',
    ({ executions, events }) => ({
      executions: change(executions, 0, { status: 'cancelled' }),
      events: change(events, 3, { type: 'execution.cancelled' }),
    }),
    /is cancelled and happened/,
  ],
  [
    'a position goes back',
    ({ events }) => ({ events: [...events, { ...(events[1] as Evidence['events'][number]), id: 5 }] }),
    /delivered of attempt 1 after rank 5/,
  ],
  [
    'a transition appears twice',
    ({ events }) => ({ events: [...events.slice(0, 3), ...events.slice(2)] }),
    /running of attempt 1 after rank 3/,
  ],
  [
    'the ledger says what no transition made it',
    ({ executions }) => ({ executions: change(executions, 0, { status: 'failed' }) }),
    /is failed, and its last transition is execution.completed/,
  ],
  [
    'a load that proves nothing, since most of it may be repeated',
    ({ executions }) => ({ executions: change(executions, 0, { delivery: 'at_least_once' }) }),
    /only 0 of 1/,
  ],
]

test.each(faults)('%s', (_name, fault, says) => {
  const evidence = good()
  expect(judge({ ...evidence, ...fault(evidence) }).join('\n')).toMatch(says)
})

test('of what may be repeated, an unknown outcome of the last attempt is a failure', () => {
  const { executions, events, journals, ...rest } = good()
  const evidence = {
    ...rest,
    executions: change(executions, 0, { status: 'failed', delivery: 'at_least_once' as const }),
    events: change(events, 3, { type: 'execution.failed' }),
    journals: change(journals, 0, { state: 'outcome_unknown' }),
  }
  expect(judge(evidence).filter((line) => !line.startsWith('at least 70 %'))).toEqual([])
})
