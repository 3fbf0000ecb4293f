import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { COSTS, withMeasured } from './capacity/costs.ts'
import { showCapacity } from './capacity/report.ts'
import { CURVES, type Curve, type Measured, measureCurves } from './curves.ts'
import { showCurve, showCurves, whereMeasured } from './curves-report.ts'
import { judge } from './judge.ts'
import { describeMachine, inWords } from './machine.ts'
import { summariseProfiles } from './profile.ts'
import { holds, showResult, showSummary } from './report.ts'
import { type Result, runScenario } from './run.ts'
import type { Form } from './scenario.ts'
import { SCENARIOS } from './scenarios.ts'
import { createStand, type Stand } from './stand.ts'

/**
 * Measures Signalbox beside what a user would pick instead, in one run. `--quick` takes two or three minutes, `--smoke` only shows
 * that everything works; `a b` or `--only a,b` runs these; `--list`; `--sizes {json}` changes sizes; `--json FILE` keeps every round; `--soak` runs what
 * takes half an hour; `--profile DIR` writes CPU profiles of our server. `--curves` measures ours alone at several sizes, and
 * `--capacity` says what large fleets would take, by a simulation; with `--costs FILE` from what `--curves --json FILE` measured.
 * Exit code 1: something failed or, in the full form, a bar is not met.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean' },
    smoke: { type: 'boolean' },
    only: { type: 'string' },
    list: { type: 'boolean' },
    sizes: { type: 'string' },
    json: { type: 'string' },
    soak: { type: 'boolean' },
    profile: { type: 'string' },
    curves: { type: 'boolean' },
    capacity: { type: 'boolean' },
    costs: { type: 'string' },
  },
})
const form: Form = values.smoke ? 'smoke' : values.quick ? 'quick' : 'full'
const named = [...positionals, ...(values.only?.split(',') ?? []), ...(values.soak ? ['soak'] : [])]
const unknown = named.filter((name) => !SCENARIOS.some((scenario) => scenario.name === name))
if (unknown.length > 0) throw new Error(`no such scenario: ${unknown.join(', ')}; see --list`)
const withoutCurve = values.curves ? named.filter((name) => !CURVES.some(({ scenario }) => scenario === name)) : []
if (withoutCurve.length > 0) throw new Error(`there is no curve of ${withoutCurve.join(', ')}`)
if (values.costs !== undefined && !values.capacity) throw new Error('--costs is for --capacity')
const changed = JSON.parse(values.sizes ?? '{}')
const openStand = (): Promise<Stand> =>
  createStand({ profileDirectory: values.profile, say: (line) => console.error(`  ${line}`) })
const chosen = SCENARIOS.filter(({ name, onRequest }) => (named.length > 0 ? named.includes(name) : !onRequest))

async function runAll(): Promise<Result[]> {
  const machine = describeMachine()
  console.log(`${form} form on ${inWords(machine)}\n`)
  const results: Result[] = []
  await using stand = await openStand()
  for (const scenario of chosen) {
    const result = await runScenario(stand, scenario, form, changed)
    results.push(result)
    console.log(`${showResult(result)}\n`)
    if (values.json) writeFileSync(values.json, asJson({ machine, form, results }))
  }
  console.log(showSummary(results))
  if (values.profile) console.log(`\n${summariseProfiles(values.profile)}`)
  return results
}

const asJson = ({ results, ...about }: { machine: object; form: Form; results: Result[] }): string =>
  JSON.stringify(
    {
      ...about,
      scenarios: results.map((result) => ({
        name: result.scenario.name,
        sizes: result.sizes,
        scaled: result.scaled,
        seconds: result.seconds,
        subjects: result.subjects,
        verdicts: judge(result),
      })),
    },
    null,
    2,
  )

/** Answers whether every point was measured. */
async function runCurves(): Promise<boolean> {
  await using stand = await openStand()
  const isChosen = ({ scenario }: Curve): boolean => named.length === 0 || named.includes(scenario)
  const measured = await measureCurves(stand, form, { chosen: isChosen, changed }, (soFar, curve) => {
    console.error(`\n${showCurve(curve, soFar)}\n`)
    if (values.json) writeFileSync(values.json, JSON.stringify(soFar, null, 2))
  })
  console.log(showCurves(measured))
  return measured.curves.every(({ points }) => points.every(({ failed }) => !failed))
}

function capacityBy(file: string | undefined): string {
  if (file === undefined) return showCapacity(COSTS, 'The costs of bench/capacity/costs.ts.')
  const measured: Measured = JSON.parse(readFileSync(file, 'utf8'))
  if (!Array.isArray(measured.curves)) throw new Error(`${file} is not what --curves --json writes`)
  return showCapacity(withMeasured(COSTS, measured), whereMeasured(measured))
}

if (values.list) for (const { name, measures } of SCENARIOS) console.log(`${name}\n  ${measures}`)
else if (values.capacity) console.log(capacityBy(values.costs))
else process.exitCode = (values.curves ? await runCurves() : holds(await runAll())) ? 0 : 1
