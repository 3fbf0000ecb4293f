import { afterAll, describe, expect, test } from 'vitest'
import { CONFIGURATIONS } from './configurations.ts'
import { describeViolation, explore, figuresOf } from './explore.ts'

/**
 * The short form: the smaller configurations to their end, the larger ones as far as the worlds nearest to the first; it says which.
 * `npm run test:model` takes all to their end.
 */
const SHORT_LIMIT = 40_000
const TIMEOUT_MS = 300_000

/** The configurations that are too large for the short form. */
const LARGE = [
  'at_most_once, journal, also lost; cancel',
  'at_most_once, journal, also lost; expiry',
  'at_most_once, memory; retry or resolve, cancel',
  'at_most_once, journal, no crash; retry or resolve',
  'at_most_once, journal, node crash; two nodes, cancel',
  'at_most_once, journal, also lost, no node crash; two nodes, one taken for dead',
  'at_least_once, memory',
  'at_least_once, memory, client crash; cancel',
  'at_least_once, memory, client crash; expiry',
  'at_least_once, journal, no crash; cancel',
  'at_least_once, journal, no crash; expiry',
  'at_least_once, journal',
  'at_least_once, journal, node crash; expiry',
  'at_least_once, journal, node crash; cancel',
  'at_least_once, journal, also lost, client crash',
  'at_least_once, journal, no crash; two nodes',
  'at_least_once without retries, journal, client crash; retry or resolve',
]

const lines: string[] = []
afterAll(() => console.log(lines.join('\n')))

describe('whatever happens in between, the rules hold', () => {
  test.each(Object.entries(CONFIGURATIONS))(
    '%s',
    (name, bounds) => {
      const isLarge = LARGE.includes(name)
      const explored = explore(bounds, isLarge ? { limit: SHORT_LIMIT } : {})
      lines.push(`${name}: ${figuresOf(explored)}`)
      expect(explored.violations.map(describeViolation)).toEqual([])
      expect(explored.capped).toBe(isLarge)
    },
    TIMEOUT_MS,
  )
})
