import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { type Figures, NotRun, type Scenario } from './scenario.ts'
import { agentKills } from './scenarios/agent-kills.ts'
import { badDevices } from './scenarios/bad-devices.ts'
import { cancelRaces } from './scenarios/cancel-races.ts'
import { clocks } from './scenarios/clocks.ts'
import { expiredQueue } from './scenarios/expired-queue.ts'
import { frozenAgents } from './scenarios/frozen-agents.ts'
import { network } from './scenarios/network.ts'
import { nodes } from './scenarios/nodes.ts'
import { oracleProved } from './scenarios/oracle-proved.ts'
import { postgresFreezes, postgresFullDisk, postgresKills, postgresRestarts } from './scenarios/postgres.ts'
import { restartStorm } from './scenarios/restart-storm.ts'
import { serverKills } from './scenarios/server-kills.ts'
import { tornJournal } from './scenarios/torn-journal.ts'
import { twins } from './scenarios/twins.ts'

/**
 * The fault suite: starts real servers, PostgreSQL and devices as processes, hurts them, and judges from outside.
 * `--long` for a night, with a results file under docs/faults; `--only a,b`, in that order; `--except a`; `--seed n` repeats a run; `--sizes {json}` changes
 * sizes of the form; `--lanes 1` lets none run beside another.
 */
const SCENARIOS: Scenario[] = [
  serverKills,
  agentKills,
  tornJournal,
  network,
  badDevices,
  expiredQueue,
  clocks,
  postgresRestarts,
  postgresKills,
  postgresFreezes,
  postgresFullDisk,
  cancelRaces,
  twins,
  restartStorm,
  nodes,
  frozenAgents,
  oracleProved,
]

const { values } = parseArgs({
  options: {
    long: { type: 'boolean' },
    only: { type: 'string' },
    seed: { type: 'string' },
    list: { type: 'boolean' },
    sizes: { type: 'string' },
    except: { type: 'string' },
    lanes: { type: 'string', default: '2' },
  },
})
const size = values.long ? 'long' : 'short'
const seed = Number(values.seed ?? Date.now() % 1_000_000)
const names = values.only?.split(',')
const left = values.except?.split(',') ?? []
const unknown = [...(names ?? []), ...left].filter((name) => !SCENARIOS.some((scenario) => scenario.name === name))
if (unknown.length > 0) throw new Error(`no such scenario: ${unknown.join(', ')}`)
const all = names?.flatMap((name) => SCENARIOS.filter((scenario) => scenario.name === name)) ?? SCENARIOS
const chosen = all.filter(({ name }) => !left.includes(name))

interface Result {
  scenario: Scenario
  sizes: Figures
  seconds: number
  figures: Figures
  failure: string | undefined
  /** Why it was not run. */
  notRun?: string
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
  await Promise.all(Array.from({ length: Number(values.lanes) }, () => lane(together)))
  await lane(chosen.filter(({ alone }) => alone))
  const held = results.filter(({ failure, notRun }) => failure === undefined && notRun === undefined)
  const seconds = Math.round((performance.now() - started) / 1000)
  console.log(`\n${held.length} of ${results.length} held, ${seconds} s, seed ${seed}`)
  return results.every(({ failure }) => failure === undefined)
}

/** Prints when it is over, so that two that run side by side do not mix their lines. */
async function runOne(scenario: Scenario): Promise<Result> {
  const sizes = { ...scenario.sizes[size], ...JSON.parse(values.sizes ?? '{}') }
  const started = performance.now()
  const lines = [`\n${scenario.name} (${shown(sizes)})`, `  ${scenario.proves}`]
  const say = (line: string): void => void lines.push(`  ${line}`)
  const seen: Pick<Result, 'figures' | 'failure' | 'notRun'> = await scenario.run(sizes, { seed, say }).then(
    (figures) => ({ figures, failure: undefined }),
    (error: Error) =>
      error instanceof NotRun && !process.env.CI
        ? { figures: {}, failure: undefined, notRun: error.message }
        : { figures: {}, failure: error.stack ?? error.message },
  )
  const seconds = (performance.now() - started) / 1000
  console.log([...lines, `  ${seconds.toFixed(1)} s, ${verdictOf(seen)}`].join('\n'))
  return { scenario, sizes, seconds, ...seen }
}

function verdictOf({ figures, failure, notRun }: Pick<Result, 'figures' | 'failure' | 'notRun'>): string {
  if (notRun !== undefined) return `not run: ${notRun}`
  return failure === undefined ? `held: ${shown(figures)}` : `DOES NOT HOLD: ${failure}`
}

const shown = (figures: Figures): string =>
  Object.entries(figures)
    .map(([name, figure]) => `${name} ${figure}`)
    .join(', ')

/** A scenario that ran earlier on the same day keeps its row until it runs again. */
function writeResults(results: Result[]): void {
  const day = new Date().toISOString().slice(0, 10)
  const file = `docs/faults/${day}.md`
  const machine = `${cpus().length} cores (${cpus()[0]?.model ?? 'unknown'}), ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`
  const rows = results.map(
    ({ scenario, sizes, seconds, figures, failure, notRun }) =>
      `| ${scenario.name} | ${failure !== undefined ? 'DOES NOT HOLD' : notRun !== undefined ? 'not run' : 'held'} | ${seed} | ${Math.round(seconds)} s | ${shown(sizes)} | ${notRun ?? failure?.split('\n')[0] ?? shown(figures)} |`,
  )
  const ran = new Set(results.map(({ scenario }) => scenario.name))
  const before = existsSync(file) ? readFileSync(file, 'utf8').split('\n') : []
  const kept = before.filter((line) => SCENARIOS.some(({ name }) => line.startsWith(`| ${name} |`) && !ran.has(name)))
  mkdirSync('docs/faults', { recursive: true })
  writeFileSync(
    file,
    `# The fault suite's long form, ${day}\n\n\`npm run test:faults -- --long --seed …\` on ${machine}.\n\n| scenario | | seed | time | size | seen |\n|---|---|---|---|---|---|\n${[...kept, ...rows].join('\n')}\n`,
  )
}

if (values.list) for (const { name, proves } of chosen) console.log(`${name}\n  ${proves}`)
// What a scenario that failed has left running must not keep it going.
else process.exit((await runAll()) ? 0 : 1)
