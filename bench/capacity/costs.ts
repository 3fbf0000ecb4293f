import type { Measured, Point } from '../curves.ts'
import type { FigureName } from '../figures.ts'

/** What one of something takes: a number, and where it comes from. */
export interface Cost {
  value: number
  unit: string
  what: string
  /** Where it was measured, or why it is assumed. */
  from: string
  /** Finds it in what `--curves` measured; undefined if it was not. */
  read?: (measured: Measured) => number | undefined
}

type Reader = NonNullable<Cost['read']>

const pointsOf = ({ curves }: Measured, scenario: string): Point[] =>
  (curves.find((curve) => curve.scenario === scenario)?.points ?? []).filter(({ failed }) => !failed)

/** At the largest size, where what is there once weighs least. `factor` brings it to the unit, `each` shares it out. */
const largest =
  (scenario: string, name: FigureName, { factor = 1, each = false } = {}): Reader =>
  (measured) => {
    const point = pointsOf(measured, scenario).at(-1)
    const value = point?.figures[name]
    return point && value !== undefined ? Math.max(0, (value * factor) / (each ? point.at : 1)) : undefined
  }

/** What one more takes: from the smallest size to the largest. */
const slope =
  (scenario: string, name: FigureName, factor: number): Reader =>
  (measured) => {
    const points = pointsOf(measured, scenario)
    const [first, last] = [points[0], points.at(-1)]
    const [less, more] = [first?.figures[name], last?.figures[name]]
    if (!first || !last || first === last || less === undefined || more === undefined) return undefined
    return Math.max(0, ((more - less) * factor) / (last.at - first.at))
  }

/**
 * All that the model knows of the product. The values are those of the curves in docs/scaling.md; `--costs FILE` puts those of a
 * run of one's own in their place.
 */
export const COSTS = {
  memoryOfNode: {
    value: 174,
    unit: 'MiB',
    what: 'memory of a node that has nobody',
    from: 'idle-fleet, memory without devices, smallest fleet',
    read: (measured) => pointsOf(measured, 'idle-fleet')[0]?.figures.memoryEmpty,
  },
  memoryOfRegistered: {
    value: 1.27,
    unit: 'KiB',
    what: 'memory of a registered client, on every node: its retained status and configuration',
    from: 'fleet-queries, memory, growth from the fewest clients to the most',
    read: slope('fleet-queries', 'memory', 1024),
  },
  memoryOfConnected: {
    value: 24.9,
    unit: 'KiB',
    what: 'memory of a connected device, on its node',
    from: 'idle-fleet, memory grown by, largest fleet',
    read: largest('idle-fleet', 'memoryGrowth', { factor: 1024, each: true }),
  },
  idleCpu: {
    value: 5.53,
    unit: 'µs/s',
    what: 'CPU of a connected device that only pings, on its node; its part of the sweep is in it',
    from: 'idle-fleet, CPU grown by, largest fleet',
    read: largest('idle-fleet', 'cpuGrowth', { factor: 10_000, each: true }),
  },
  sweepCpu: {
    value: 7.26,
    unit: 'µs',
    what: 'time of PostgreSQL for one session in one sweep',
    from: 'fleet-queries, sweep of 500 sessions, most clients',
    read: largest('fleet-queries', 'sweep', { factor: 1000 / 500 }),
  },
  lostSessionsCpu: {
    value: 0.191,
    unit: 'µs',
    what: 'time of PostgreSQL for one registered client when a node looks for lost sessions',
    from: 'fleet-queries, look for lost sessions, most clients',
    read: largest('fleet-queries', 'lostSessions', { factor: 1000, each: true }),
  },
  comparisonCpu: {
    value: 7921,
    unit: 'µs',
    what: 'time of PostgreSQL for a comparison of 5,000 clients',
    from: 'fleet-queries, comparison, most clients',
    read: largest('fleet-queries', 'comparison', { factor: 1000 }),
  },
  alertSliceCpu: {
    value: 2451,
    unit: 'µs',
    what: 'time of PostgreSQL for a look for alerts at 5,000 clients',
    from: 'fleet-queries, look for alerts, most clients',
    read: largest('fleet-queries', 'alertSlice', { factor: 1000 }),
  },
  connectCpu: {
    value: 449,
    unit: 'µs',
    what: 'CPU of a node for one login with its subscriptions',
    from: 'connect-storm, CPU of the server, largest fleet',
    read: largest('connect-storm', 'serverCpu'),
  },
  connectDatabaseCpu: {
    value: 161,
    unit: 'µs',
    what: 'CPU of PostgreSQL for one login',
    from: 'connect-storm, CPU of the database, largest fleet',
    read: largest('connect-storm', 'databaseCpu'),
  },
  commandCpu: {
    value: 274,
    unit: 'µs',
    what: 'CPU of a node for one command, from POST to completed',
    from: 'history, CPU of the server, most rows',
    read: largest('history', 'serverCpu'),
  },
  commandDatabaseCpu: {
    value: 172,
    unit: 'µs',
    what: 'CPU of PostgreSQL for one command, from POST to completed',
    from: 'history, CPU of the database, most rows',
    read: largest('history', 'databaseCpu'),
  },
  commandWal: {
    value: 4275,
    unit: 'bytes',
    what: 'WAL of one command',
    from: 'lifecycle, WAL, largest fleet',
    read: largest('lifecycle', 'wal'),
  },
  commandDisk: {
    value: 2219,
    unit: 'bytes',
    what: 'what a settled command keeps on disk, with its events and indices',
    from: 'history, kept on disk, most rows',
    read: largest('history', 'disk'),
  },
  broadcastCpu: {
    value: 189,
    unit: 'µs',
    what: 'CPU of a node for one execution of a broadcast',
    from: 'broadcast, CPU of the server, largest fleet',
    read: largest('broadcast', 'serverCpu'),
  },
  broadcastDatabaseCpu: {
    value: 109,
    unit: 'µs',
    what: 'CPU of PostgreSQL for one execution of a broadcast, its insert included',
    from: 'broadcast, CPU of the database, largest fleet',
    read: largest('broadcast', 'databaseCpu'),
  },
  broadcastInsert: {
    value: 6.4,
    unit: 'µs',
    what: 'time of the one statement that stores a broadcast, for one execution; on one core of PostgreSQL',
    from: 'fleet-queries, insert of one broadcast, most clients',
    read: largest('fleet-queries', 'broadcastInsert', { factor: 1e6, each: true }),
  },
  hintCpu: {
    value: 4.57,
    unit: 'µs',
    what: 'CPU of a node for a hint that another one sent, what stands still included',
    from: 'neighbour, CPU of the other node',
    read: largest('neighbour', 'neighbourCpu'),
  },
} satisfies Record<string, Cost>

export type CostName = keyof typeof COSTS
export type Costs = Record<CostName, Cost>

/** The same table with what a run has measured in it; what it has not measured stays, and says so. */
export function withMeasured(costs: Costs, measured: Measured): Costs {
  const entries = Object.entries(costs).map(([name, cost]) => {
    const value = cost.read?.(measured)
    if (value === undefined || !Number.isFinite(value))
      return [name, { ...cost, from: `${cost.from}; not in this run` }]
    return [name, { ...cost, value }]
  })
  return Object.fromEntries(entries) as Costs
}
