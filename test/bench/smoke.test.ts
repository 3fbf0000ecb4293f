import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import type { Verdict } from '../../bench/judge.ts'
import type { SubjectResult } from '../../bench/run.ts'
import { SCENARIOS } from '../../bench/scenarios.ts'

interface Report {
  machine: { cores: number }
  scenarios: { name: string; subjects: SubjectResult[]; verdicts: Verdict[] }[]
}

const run = promisify(execFile)

/** Peers that the machine has not are named; whoever is there was measured, and its work was found in its ledger. */
/** They are run by the test of the curves, which nothing else needs them for. */
const ONLY_IN_CURVES = ['fleet-queries', 'neighbour']

test('every scenario runs in its smallest size, beside its peers', { timeout: 300_000 }, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'signalbox-bench-test-'))
  const file = join(directory, 'report.json')
  const names = SCENARIOS.map(({ name }) => name).filter((name) => !ONLY_IN_CURVES.includes(name))
  const [first, ...others] = names as [string, ...string[]]
  const { stdout } = await run(process.execPath, [
    'bench/main.ts',
    '--smoke',
    first,
    '--only',
    others.join(','),
    '--json',
    file,
  ])
  const report: Report = JSON.parse(await readFile(file, 'utf8'))
  await rm(directory, { recursive: true })

  expect(report.machine.cores).toBeGreaterThan(0)
  expect(report.scenarios.map(({ name }) => name)).toEqual(names)
  for (const { name, subjects, verdicts } of report.scenarios) {
    expect(stdout).toContain(`${name}: `)
    for (const subject of subjects) {
      expect(subject.failure, `${name}, ${subject.name}`).toBeUndefined()
      if (subject.absent) expect(stdout).toContain(`${subject.name} is ${subject.absent}`)
      else expect(Object.keys(subject.medians), `${name}, ${subject.name}`).not.toEqual([])
    }
    for (const { verdict } of verdicts) expect(verdict).toBe('not judged')
  }
})
