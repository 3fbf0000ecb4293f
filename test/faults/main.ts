import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import type { Figures, Scenario } from './scenario.ts'
import { agentKills } from './scenarios/agent-kills.ts'
import { cancelRaces } from './scenarios/cancel-races.ts'
import { expiredQueue } from './scenarios/expired-queue.ts'
import { network } from './scenarios/network.ts'
import { oracleProved } from './scenarios/oracle-proved.ts'
import { serverKills } from './scenarios/server-kills.ts'
import { tornJournal } from './scenarios/torn-journal.ts'
import { twins } from './scenarios/twins.ts'

/**
 * The fault suite: starts real servers, PostgreSQL and devices as processes, hurts them, and judges from outside.
 * `--long` for a night, with a results file under docs/faults; `--only a,b`; `--seed n` repeats a run; `--sizes {json}` changes
 * sizes of the form.
 */
const SCENARIOS: Scenario[] = [
  serverKills,
  agentKills,
  tornJournal,
  network,
  expiredQueue,
  cancelRaces,
  twins,
  oracleProved,
]

const { values } = parseArgs({
  options: {
    long: { type: 'boolean' },
    only: { type: 'string' },
    seed: { type: 'string' },
    list: { type: 'boolean' },
    sizes: { type: 'string' },
  },
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
  const started = performance.now()
  const results: Result[] = []
  const lane = async (queue: Scenario[]): Promise<void> => {
    for (let scenario = queue.shift(); scenario; scenario = queue.shift()) {
      results.push(await runOne(scenario))
      if (values.long) writeResults(results)
    }
  }
  // Most of them wait most of the time.
  const together = chosen.filter(({ alone }) => !alone)
  await Promise.all([lane(together), lane(together)])
  await lane(chosen.filter(({ alone }) => alone))
  const failed = results.filter(({ failure }) => failure !== undefined)
  const seconds = Math.round((performance.now() - started) / 1000)
  console.log(`\n${results.length - failed.length} of ${results.length} held, ${seconds} s, seed ${seed}`)
  return failed.length === 0
}

/** Prints when it is over, so that two that run side by side do not mix their lines. */
async function runOne(scenario: Scenario): Promise<Result> {
  const sizes = { ...scenario.sizes[size], ...JSON.parse(values.sizes ?? '{}') }
  const started = performance.now()
  const lines = [`\n${scenario.name} (${shown(sizes)})`, `  ${scenario.proves}`]
  const say = (line: string): void => void lines.push(`  ${line}`)
  const { figures, failure } = await scenario.run(sizes, { seed, say }).then(
    (seen) => ({ figures: seen, failure: undefined }),
    (error: Error) => ({ figures: {}, failure: error.stack ?? error.message }),
  )
  const seconds = (performance.now() - started) / 1000
  const verdict = failure === undefined ? `held: ${shown(figures)}` : `DOES NOT HOLD: ${failure}`
  console.log([...lines, `  ${seconds.toFixed(1)} s, ${verdict}`].join('\n'))
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
