import { spawnSync } from 'node:child_process'
import { FIGURES, type FigureName } from './figures.ts'
import type { Figures, Form, Need, Scenario } from './scenario.ts'
import type { Stand } from './stand.ts'
import { median } from './statistics.ts'

export interface Result {
  scenario: Scenario
  form: Form
  sizes: Record<string, number>
  seconds: number
  subjects: SubjectResult[]
}

export interface SubjectResult {
  name: string
  /** One per round, in order. */
  rounds: Figures[]
  medians: Figures
  /** Why there is nothing, or not all of it. */
  absent?: string
  failure?: string
}

/** Measures ours and its peers in turn, round after round. A subject that fails is told of and not asked again. */
export async function runScenario(stand: Stand, scenario: Scenario, form: Form, changed: object): Promise<Result> {
  const sizes = { ...scenario.sizes[form], ...changed }
  const startedAt = performance.now()
  const subjects = scenario.subjects.map(({ name, needs }): SubjectResult => {
    const absent = needs && missing(needs)
    return { name, rounds: [], medians: {}, ...(absent ? { absent } : {}) }
  })
  for (let round = 1; round <= sizes.rounds; round++) {
    for (const [index, result] of subjects.entries()) {
      if (result.absent ?? result.failure) continue
      stand.say(`${scenario.name} ${round}/${sizes.rounds}: ${result.name}`)
      try {
        const figures = await scenario.subjects[index]?.measure(stand, sizes)
        result.rounds.push(figures as Figures)
      } catch (error) {
        result.failure = (error as Error).stack ?? String(error)
        stand.say(result.failure)
      }
    }
  }
  for (const result of subjects) result.medians = medianOf(result.rounds)
  return { scenario, form, sizes: { ...sizes }, seconds: (performance.now() - startedAt) / 1000, subjects }
}

function missing({ program, debianPackage }: Need): string | undefined {
  const found = spawnSync('sh', ['-c', `command -v ${program} || command -v /usr/sbin/${program}`]).status === 0
  return found ? undefined : `absent: ${program} is not installed (apt-get install ${debianPackage})`
}

function medianOf(rounds: Figures[]): Figures {
  const names = Object.keys(FIGURES) as FigureName[]
  return Object.fromEntries(
    names
      .map((name) => [name, rounds.map((round) => round[name]).filter((value) => value !== undefined)] as const)
      .map(([name, values]) => [name, values.filter((value) => !Number.isNaN(value))] as const)
      .filter(([, values]) => values.length > 0)
      .map(([name, values]) => [name, median(values)]),
  )
}
