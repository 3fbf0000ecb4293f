import { afterAll, describe, expect, test } from 'vitest'
import { CONFIGURATIONS } from './configurations.ts'
import { type Explored, explore } from './explore.ts'

/**
 * The short form looks at every configuration, nearest worlds first, and at the smaller ones to their end; it says which it did not
 * finish. `npm run test:model` is the long form: all to their end, in some minutes.
 */
const isLong = process.env.MODEL_CHECK === 'long'
const SHORT_LIMIT = 40_000
const LONG_TIMEOUT = 1_800_000

/** The configurations that are too large for the short form. */
const LARGE = [
  'at_most_once, journal, also lost; cancel',
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
]

const figures = ({ states, transitions, rows, capped }: Explored): string =>
  `${states} states, ${transitions} transitions, ${rows} states of the execution${capped ? '; CAPPED, there are more' : ''}`

const lines: string[] = []
afterAll(() => console.log(lines.join('\n')))

describe('whatever happens in between, the rules hold', () => {
  test.each(Object.entries(CONFIGURATIONS))(
    '%s',
    (name, bounds) => {
      const isCapped = !isLong && LARGE.includes(name)
      const explored = explore(bounds, isCapped ? { limit: SHORT_LIMIT } : {})
      lines.push(`${name}: ${figures(explored)}`)
      expect(explored.violations).toEqual([])
      expect(explored.capped).toBe(isCapped)
    },
    LONG_TIMEOUT,
  )
})
