import { expect, test } from 'vitest'
import { judge } from '../../bench/judge.ts'
import { showResult, showSummary } from '../../bench/report.ts'
import type { Result } from '../../bench/run.ts'
import type { Bar, Figures } from '../../bench/scenario.ts'
import { SCENARIOS } from '../../bench/scenarios.ts'
import { median, percentile } from '../../bench/statistics.ts'

function resultOf(bar: Bar, ours: Figures[], peer: Figures[], form: Result['form'] = 'full'): Result {
  const medians = (rounds: Figures[]): Figures => ({ rate: median(rounds.map(({ rate }) => rate as number)) })
  return {
    scenario: { name: 'one', measures: 'something', sizes: {} as never, subjects: [], bars: [bar] },
    form,
    sizes: { rounds: ours.length },
    seconds: 1,
    subjects: [
      { name: 'signalbox', rounds: ours, medians: medians(ours) },
      peer.length > 0
        ? { name: 'peer', rounds: peer, medians: medians(peer) }
        : { name: 'peer', rounds: [], medians: {}, absent: 'absent: peer is not installed (apt-get install peer)' },
    ],
  }
}

const rates = (...values: number[]): Figures[] => values.map((rate) => ({ rate }))
const RATIO = { subject: 'peer', by: 'ratio' } as const

test.each<[string, Bar, Figures[], Figures[], number | undefined, string]>([
  ['by itself, enough', { figure: 'rate', is: 'at least', bar: 100 }, rates(90, 110, 120), [], 110, 'met'],
  ['by itself, too little', { figure: 'rate', is: 'at least', bar: 111 }, rates(90, 110, 120), [], 110, 'NOT MET'],
  ['by itself, the goal', { figure: 'rate', is: 'at least', bar: 50, goal: 110 }, rates(110), [], 110, 'goal'],
  ['only a goal, not reached', { figure: 'rate', is: 'at most', goal: 100 }, rates(110), [], 110, 'not reached'],
  ['no limit: only shown', { figure: 'rate', against: RATIO }, rates(50), rates(100), 0.5, 'no bar'],
  ['at most', { figure: 'rate', is: 'at most', bar: 110 }, rates(110), [], 110, 'met'],
  // The medians are 100 and 100: round by round it was half of the peer twice.
  [
    'the ratio of each round',
    { figure: 'rate', against: RATIO, is: 'at least', bar: 0.6 },
    rates(50, 100, 400),
    rates(100, 200, 100),
    0.5,
    'NOT MET',
  ],
  [
    'the difference',
    { figure: 'rate', against: { subject: 'peer', by: 'difference' }, is: 'at most', bar: 500 },
    rates(700),
    rates(300),
    400,
    'met',
  ],
  [
    'a peer that is absent',
    { figure: 'rate', against: RATIO, is: 'at least', bar: 1 },
    rates(1),
    [],
    undefined,
    'not measured',
  ],
  ['a figure that nobody found', { figure: 'p99', is: 'at most', bar: 1 }, rates(1), [], undefined, 'not measured'],
])('%s', (_, bar, ours, peer, value, verdict) => {
  expect(judge(resultOf(bar, ours, peer))).toEqual([{ bar, value, verdict }])
})

test('an absent peer is named, and what was judged is one row of the summary', () => {
  const bar: Bar = { figure: 'rate', is: 'at least', bar: 3000, goal: 6000 }
  const result = resultOf(bar, rates(3100.4, 2900, 3200), [])
  expect(showResult(result)).toContain('peer is absent: peer is not installed (apt-get install peer)')
  expect(showResult(result)).toContain('3,100 (2,900–3,200)')
  expect(showSummary([result])).toContain('| one | rate | 3,100 /s | ≥ 3,000 | ≥ 6,000 | met |')
  expect(showSummary([{ ...result, form: 'smoke' }])).toContain('not judged')
})

test('a bar names a subject of its scenario, and what is compared first is ours', () => {
  for (const { name, subjects, bars } of SCENARIOS) {
    for (const { against } of bars) {
      if (against)
        expect(
          subjects.slice(1).map((subject) => subject.name),
          name,
        ).toContain(against.subject)
    }
  }
})

test('median and percentiles', () => {
  expect([median([3, 1, 2]), median([4, 1, 2, 3]), median([])]).toEqual([2, 2.5, Number.NaN])
  const hundred = Array.from({ length: 100 }, (_, index) => 100 - index)
  expect([percentile(hundred, 0.5), percentile(hundred, 0.99), percentile(hundred, 1)]).toEqual([50, 99, 100])
  expect(percentile([], 0.5)).toBeNaN()
})
