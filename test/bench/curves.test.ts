import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { COSTS, type CostName, withMeasured } from '../../bench/capacity/costs.ts'
import { CURVES, growth, type Measured } from '../../bench/curves.ts'
import { showCurves } from '../../bench/curves-report.ts'
import { SCENARIOS } from '../../bench/scenarios.ts'

const run = promisify(execFile)

test('a curve changes a size that its scenario has', () => {
  for (const { scenario, size, sizes = {}, points } of CURVES) {
    const found = SCENARIOS.find(({ name }) => name === scenario)
    expect(Object.keys(found?.sizes.full ?? {}), scenario).toEqual(
      expect.arrayContaining([size, ...Object.keys(sizes)]),
    )
    for (const values of Object.values(points)) expect(values, scenario).toEqual(values.toSorted((a, b) => a - b))
  }
})

test.each([
  ['nothing', [7, 7, 7], 0],
  ['n', [10, 20, 50], 1],
  ['n squared', [1, 4, 25], 2],
  ['its inverse', [1, 0.5, 0.2], -1],
])('what grows with %s is told so', (_, values, power) => {
  const at = [1000, 2000, 5000]
  expect(growth(values.map((value, index) => ({ at: at[index] as number, value })))).toBeCloseTo(power, 9)
})

test.each<[string, { at: number; value: number | undefined }[]]>([
  ['one point', [{ at: 1, value: 1 }]],
  [
    'a point that found nothing',
    [
      { at: 1, value: 1 },
      { at: 2, value: undefined },
    ],
  ],
  [
    'a point below nothing',
    [
      { at: 1, value: -1 },
      { at: 2, value: 3 },
    ],
  ],
])('%s says nothing of the growth', (_, points) => expect(growth(points)).toBeUndefined())

test('points become a file and a table, and the file becomes costs', { timeout: 300_000 }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'signalbox-curves-test-'))
  const file = join(directory, 'curves.json')
  const bench = (...args: string[]) => run(process.execPath, ['bench/main.ts', ...args])
  const { stdout } = await bench('--curves', '--smoke', '--only', 'connect-storm,fleet-queries', '--json', file)
  const measured: Measured = JSON.parse(await readFile(file, 'utf8'))
  const { stdout: capacity } = await bench('--capacity', '--costs', file)
  const refused = (...args: string[]) =>
    bench(...args).then(
      () => '',
      ({ stderr }) => stderr,
    )
  await writeFile(file, '{}')
  expect(await refused('--capacity', '--costs', file)).toContain('is not what --curves --json writes')
  expect(await refused('--costs', file)).toContain('--costs is for --capacity')
  expect(await refused('--curves', '--only', 'create')).toContain('there is no curve of create')
  await rm(directory, { recursive: true })

  expect(measured.curves.map(({ scenario, points }) => [scenario, points.map(({ at }) => at)])).toEqual([
    ['connect-storm', [5, 10]],
    ['fleet-queries', [100, 500]],
  ])
  for (const { points } of measured.curves) {
    for (const point of points) {
      expect(point, point.note).toMatchObject({ failed: false })
      expect(Object.keys(point.figures)).not.toEqual([])
    }
  }
  expect(stdout.trim()).toBe(showCurves(measured))
  expect(stdout).toContain('grows with')

  const costs = withMeasured(COSTS, measured)
  const last = measured.curves[1]?.points.at(-1)?.figures
  expect(costs.broadcastInsert.value).toBeCloseTo(((last?.broadcastInsert as number) * 1e6) / 500, 6)
  expect(costs.commandCpu).toMatchObject({ value: COSTS.commandCpu.value })
  expect(costs.commandCpu.from).toContain('not in this run')
  for (const name of Object.keys(COSTS) as CostName[]) expect(capacity).toContain(`\`${name}\``)
})
