import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { judge } from './judge.ts'
import { describeMachine, inWords } from './machine.ts'
import { summariseProfiles } from './profile.ts'
import { holds, showResult, showSummary } from './report.ts'
import { type Result, runScenario } from './run.ts'
import type { Form } from './scenario.ts'
import { SCENARIOS } from './scenarios.ts'
import { createStand } from './stand.ts'

/**
 * Measures Signalbox beside what a user would pick instead, in one run. `--quick` takes two or three minutes, `--smoke` only shows
 * that everything works; `a b` or `--only a,b` runs these; `--list`; `--sizes {json}` changes sizes; `--json FILE` keeps every round; `--soak` runs what
 * takes half an hour; `--profile DIR` writes CPU profiles of our server. Exit code 1: something failed or, in the full form, a bar is
 * not met.
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
  },
})
const form: Form = values.smoke ? 'smoke' : values.quick ? 'quick' : 'full'
const named = [...positionals, ...(values.only?.split(',') ?? []), ...(values.soak ? ['soak'] : [])]
const unknown = named.filter((name) => !SCENARIOS.some((scenario) => scenario.name === name))
if (unknown.length > 0) throw new Error(`no such scenario: ${unknown.join(', ')}; see --list`)
const chosen = SCENARIOS.filter(({ name, onRequest }) => (named.length > 0 ? named.includes(name) : !onRequest))

async function runAll(): Promise<Result[]> {
  const machine = describeMachine()
  console.log(`${form} form on ${inWords(machine)}\n`)
  const results: Result[] = []
  await using stand = await createStand({
    profileDirectory: values.profile,
    say: (line) => console.error(`  ${line}`),
  })
  for (const scenario of chosen) {
    const result = await runScenario(stand, scenario, form, JSON.parse(values.sizes ?? '{}'))
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

if (values.list) for (const { name, measures } of SCENARIOS) console.log(`${name}\n  ${measures}`)
else process.exitCode = holds(await runAll()) ? 0 : 1
