import type { FigureName } from './figures.ts'
import { describeMachine, type Machine } from './machine.ts'
import { runScenario } from './run.ts'
import type { Figures, Form } from './scenario.ts'
import { SCENARIOS } from './scenarios.ts'
import type { Stand } from './stand.ts'

/** How the figures of a scenario change with one of its sizes. */
export interface Curve {
  scenario: string
  /** The size that changes, and what is counted by it. */
  size: string
  points: Record<Form, number[]>
  /** Sizes that are other than the scenario's own, so that all points together take minutes. */
  sizes?: Record<string, number>
  columns: Column[]
}

export interface Column {
  figure: FigureName
  /** The figure is shared out among as many as the point has, and told in another unit. */
  each?: { label: string; unit: string; factor: number }
}

const CONNECTED = { full: [1000, 2000, 5000, 10_000], quick: [500, 1000], smoke: [5, 10] }
const ROWS = { full: [10_000, 100_000, 1_000_000], quick: [5000, 20_000], smoke: [100, 500] }

const column = (figure: FigureName): Column => ({ figure })

/** A percent of a core is 10,000 µs of a second. */
const US_OF_PERCENT = 10_000

export const CURVES: readonly Curve[] = [
  {
    scenario: 'idle-fleet',
    size: 'devices',
    points: CONNECTED,
    // The load pings every 15 s: each device once.
    sizes: { seconds: 15 },
    columns: [
      column('memoryEmpty'),
      column('memoryGrowth'),
      { figure: 'memoryGrowth', each: { label: 'memory of one', unit: 'KiB', factor: 1024 } },
      column('cpuGrowth'),
      { figure: 'cpuGrowth', each: { label: 'CPU of one', unit: 'µs/s', factor: US_OF_PERCENT } },
      {
        figure: 'databaseCpuGrowth',
        each: { label: 'CPU of the database for one', unit: 'µs/s', factor: US_OF_PERCENT },
      },
    ],
  },
  {
    scenario: 'connect-storm',
    size: 'devices',
    points: CONNECTED,
    columns: [column('rate'), column('serverCpu'), column('databaseCpu')],
  },
  {
    scenario: 'broadcast',
    size: 'devices',
    points: CONNECTED,
    columns: [
      column('firstReceipt'),
      column('lastReceipt'),
      column('allCompleted'),
      column('othersP99'),
      column('serverCpu'),
      column('databaseCpu'),
    ],
  },
  {
    scenario: 'lifecycle',
    size: 'devices',
    points: CONNECTED,
    columns: [
      column('rate'),
      column('p99'),
      column('serverCpu'),
      column('databaseCpu'),
      column('statements'),
      column('wal'),
    ],
  },
  {
    scenario: 'history',
    size: 'settled',
    points: ROWS,
    columns: [column('rate'), column('p99'), column('serverCpu'), column('databaseCpu'), column('disk')],
  },
  {
    scenario: 'fleet-queries',
    size: 'clients',
    points: ROWS,
    columns: [
      column('nodeStart'),
      column('memory'),
      column('sweep'),
      column('lostSessions'),
      column('alertSlice'),
      column('comparison'),
      column('broadcastInsert'),
      column('disk'),
    ],
  },
  {
    scenario: 'neighbour',
    size: 'clients',
    points: { full: [1000], quick: [100], smoke: [10] },
    columns: [column('rate'), column('serverCpu'), column('neighbourCpu')],
  },
]

export interface Point {
  at: number
  figures: Figures
  seconds: number
  /** Why there is nothing, or why it is another size. */
  note?: string
  failed: boolean
}

/** What a run found: what `--json` writes, and what the capacity model reads. */
export interface Measured {
  machine: Machine
  form: Form
  curves: { scenario: string; size: string; points: Point[] }[]
}

/** Ours alone, one round for each point, with the sizes that were `changed`; `found` is called after each curve. */
export async function measureCurves(
  stand: Stand,
  form: Form,
  { chosen, changed }: { chosen: (curve: Curve) => boolean; changed: object },
  found: (measured: Measured, curve: Curve) => void,
): Promise<Measured> {
  const measured: Measured = { machine: describeMachine(), form, curves: [] }
  for (const curve of CURVES.filter(chosen)) {
    const points: Point[] = []
    for (const at of curve.points[form]) points.push(await measurePoint(stand, form, curve, changed, at))
    measured.curves.push({ scenario: curve.scenario, size: curve.size, points })
    found(measured, curve)
  }
  return measured
}

async function measurePoint(stand: Stand, form: Form, curve: Curve, changed: object, at: number): Promise<Point> {
  const scenario = SCENARIOS.find(({ name }) => name === curve.scenario)
  if (!scenario) throw new Error(`there is no scenario ${curve.scenario}`)
  const ours = { ...scenario, subjects: scenario.subjects.slice(0, 1) }
  const own = form === 'full' ? curve.sizes : {}
  const result = await runScenario(stand, ours, form, { ...own, rounds: 1, ...changed, [curve.size]: at })
  const { medians = {}, absent, failure } = result.subjects[0] ?? {}
  const note = failure ?? absent ?? result.scaled
  return {
    at: result.sizes[curve.size] ?? at,
    figures: medians,
    seconds: result.seconds,
    failed: failure !== undefined,
    ...(note === undefined ? {} : { note }),
  }
}

export const pointValue = ({ figure, each }: Column, { at, figures }: Point): number | undefined => {
  const value = figures[figure]
  return value === undefined || !each ? value : (value * each.factor) / at
}

/**
 * The power of n that a figure grows with, by least squares on a logarithmic scale: 0 does not grow, 1 grows with n. Undefined
 * where there are fewer than two points, or one of them is not above nothing.
 */
export function growth(points: { at: number; value: number | undefined }[]): number | undefined {
  const logs = points.map(({ at, value = Number.NaN }) => [Math.log(at), Math.log(value)] as const)
  if (logs.length < 2 || logs.flat().some((log) => !Number.isFinite(log))) return undefined
  const mean = (of: 0 | 1): number => logs.reduce((sum, log) => sum + log[of], 0) / logs.length
  const [x, y] = [mean(0), mean(1)]
  const spread = logs.reduce((sum, log) => sum + (log[0] - x) ** 2, 0)
  return spread === 0 ? undefined : logs.reduce((sum, log) => sum + (log[0] - x) * (log[1] - y), 0) / spread
}
