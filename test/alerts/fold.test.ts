import { describe, expect, test } from 'vitest'
import { type Ending, fold, type Seen, type Sighting } from '../../control/alerts/fold.ts'
import { alertKey, type OpenAlert } from '../../db/alert-store.ts'

const NOW = 1_000_000

const seen = (change: Partial<Sighting> = {}): Sighting => ({
  kind: 'command_failed',
  subject: 'c1',
  clientId: 'c1',
  commandId: null,
  count: 1,
  message: 'a command failed',
  details: {},
  at: 500,
  ...change,
})
const ended = (change: Partial<Ending> = {}): Ending => ({
  kind: 'command_failed',
  subject: 'c1',
  because: 'over',
  at: null,
  ...change,
})
const stored = (change: Partial<OpenAlert> = {}): OpenAlert => ({
  id: 'stored',
  kind: 'command_failed',
  subject: 'c1',
  clientId: 'c1',
  commandId: null,
  severity: 'warning',
  message: 'a command failed',
  details: {},
  count: 3,
  lastAt: 100,
  ...change,
})

function folded(open: OpenAlert[], ...all: Seen[]) {
  let ids = 0
  return fold(new Map(open.map((alert) => [alertKey(alert), alert])), all, NOW, () => `new-${++ids}`)
}

describe('what is seen', () => {
  test('opens one alert per kind and subject', () => {
    const changes = folded([], seen(), seen({ subject: 'c2' }), seen({ count: 2 }), seen({ kind: 'client_refused' }))
    expect(changes.map(({ alert, isNew }) => [alertKey(alert), alert.count, isNew])).toEqual([
      ['command_failed c1', 3, true],
      ['command_failed c2', 1, true],
      ['client_refused c1', 1, true],
    ])
    expect(new Set(changes.map(({ alert }) => alert.id)).size).toBe(3)
  })

  test('is added to the open one, or replaces what it counted, as the kind says', () => {
    expect(folded([stored()], seen({ count: 2 }))).toMatchObject([{ isNew: false, alert: { id: 'stored', count: 5 } }])
    const doubt = stored({ kind: 'outcome_unknown' })
    expect(folded([doubt], seen({ kind: 'outcome_unknown', count: 2 }))).toMatchObject([{ alert: { count: 2 } }])
  })

  test('makes the last time later, never earlier, and now if it has none', () => {
    expect(folded([stored()], seen({ at: 50 }))).toMatchObject([{ alert: { lastAt: 100 } }])
    expect(folded([stored()], seen({ at: 150 }))).toMatchObject([{ alert: { lastAt: 150 } }])
    expect(folded([], seen({ at: null }))).toMatchObject([{ alert: { lastAt: NOW } }])
  })

  test('continues lists, newest first, without doubles and not for ever', () => {
    const details = { commands: ['c', 'b', 'a'], error: 'old' }
    const newer = { commands: ['e', 'd', 'c'], error: 'new' }
    expect(folded([stored({ details })], seen({ details: newer }))).toMatchObject([
      { alert: { details: { commands: ['e', 'd', 'c', 'b', 'a'], error: 'new' } } },
    ])
    const many = Array.from({ length: 10 }, (_, index) => `n${index}`)
    expect(folded([stored({ details })], seen({ details: { commands: many } }))).toMatchObject([
      { alert: { details: { commands: many } } },
    ])
  })

  test('changes nothing if it is as it was, whatever the order of keys', () => {
    const lost = stored({ kind: 'feed_lag', count: 1, details: { blocker: { a: 1, b: 2 } } })
    const same = seen({ kind: 'feed_lag', details: { blocker: { b: 2, a: 1 } }, at: null })
    expect(folded([lost], same)).toEqual([])
  })
})

describe('an ending', () => {
  test('resolves the open alert and says why; of what counts how many there are, none is left', () => {
    expect(folded([stored()], ended())).toMatchObject([{ isNew: false, resolution: 'over', alert: { count: 3 } }])
    const lost = stored({ kind: 'client_lost' })
    expect(folded([lost], ended({ kind: 'client_lost' }))).toMatchObject([{ resolution: 'over', alert: { count: 0 } }])
  })

  test('of nothing is nothing, and what began and ended within one look leaves no trace', () => {
    expect(folded([], ended())).toEqual([])
    expect(folded([], seen(), ended())).toEqual([])
  })

  test('ends only what was seen until then', () => {
    expect(folded([stored()], ended({ at: 99 }))).toEqual([])
    expect(folded([stored()], ended({ at: 100 }))).toMatchObject([{ resolution: 'over' }])
    expect(folded([], seen({ at: 500 }), ended({ at: 499 }))).toMatchObject([{ isNew: true, resolution: null }])
  })

  test('that is followed by the same again is none', () => {
    expect(folded([stored()], ended(), seen())).toMatchObject([{ resolution: null, alert: { id: 'stored', count: 4 } }])
  })
})
