import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import type { Figures, Scenario } from './scenario.ts'
import { serverKills } from './scenarios/server-kills.ts'

/**
 * The fault suite: starts real servers, PostgreSQL and devices as processes, hurts them, and judges from outside.
 * `--long` for a night, with a results file under docs/faults; `--only a,b`; `--seed n` repeats a run.
 */
const SCENARIOS: Scenario[] = [serverKills]

const { values } = parseArgs({
  options: { long: { type: 'boolean' }, only: { type: 'string' }, seed: { type: 'string' }, list: { type: 'boolean' } },
})
const size = values.long ? 'long' : 'short'
const seed = Number(values.seed ?? Date.now() % 1_000_000)
const names = values.only?.split(',')
const unknown = names?.filter((name) => !SCENARIOS.some((scenario) => scenario.name === name)) ?? []
if (unknown.length > 0) throw new Error(`no such scenario: ${unknown.join(', ')}`)
const chosen = SCENARIOS.filter(({ name }) => names?.includes(name) ?? true)

interface Result {
  scenario: Scenario
  seconds: number
  figures: Figures
  failure: string | undefined
}

async function runAll(): Promise<boolean> {
  console.log(`fault suite, ${size} form, seed ${seed}`)
  const results: Result[] = []
  for (const scenario of chosen) {
    results.push(await runOne(scenario))
    if (values.long) writeResults(results)
  }
  const failed = results.filter(({ failure }) => failure !== undefined)
  const seconds = results.reduce((sum, result) => sum + result.seconds, 0)
  console.log(`${results.length - failed.length} of ${results.length} held, ${Math.round(seconds)} s, seed ${seed}`)
  return failed.length === 0
}

async function runOne(scenario: Scenario): Promise<Result> {
  const sizes = scenario.sizes[size]
  console.log(`\n${scenario.name} (${shown(sizes)})\n  ${scenario.proves}`)
  const started = performance.now()
  const say = (line: string): void => console.log(`  ${line}`)
  const { figures, failure } = await scenario.run(sizes, { seed, say }).then(
    (seen) => ({ figures: seen, failure: undefined }),
    (error: Error) => ({ figures: {}, failure: error.stack ?? error.message }),
  )
  const seconds = (performance.now() - started) / 1000
  if (failure === undefined) console.log(`  held: ${shown(figures)} (${seconds.toFixed(1)} s)`)
  else console.log(`  DOES NOT HOLD (${seconds.toFixed(1)} s): ${failure}`)
  return { scenario, seconds, figures, failure }
}

const shown = (figures: Figures): string =>
  Object.entries(figures)
    .map(([name, figure]) => `${name} ${figure}`)
    .join(', ')

function writeResults(results: Result[]): void {
  const day = new Date().toISOString().slice(0, 10)
  const machine = `${cpus().length} cores (${cpus()[0]?.model ?? 'unknown'}), ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`
  const rows = results.map(
    ({ scenario, seconds, figures, failure }) =>
      `| ${scenario.name} | ${failure === undefined ? 'held' : 'DOES NOT HOLD'} | ${Math.round(seconds)} s | ${shown(scenario.sizes.long)} | ${failure === undefined ? shown(figures) : failure.split('\n')[0]} |`,
  )
  mkdirSync('docs/faults', { recursive: true })
  writeFileSync(
    `docs/faults/${day}.md`,
    `# The fault suite's long form, ${day}\n\n\`npm run test:faults -- --long --seed ${seed}\` on ${machine}.\n\n| scenario | | time | size | seen |\n|---|---|---|---|---|\n${rows.join('\n')}\n`,
  )
}

if (values.list) for (const { name, proves } of chosen) console.log(`${name}\n  ${proves}`)
else process.exitCode = (await runAll()) ? 0 : 1
