import { FIGURES, type FigureName } from './figures.ts'
import { openFileLimit } from './machine.ts'
import { locate } from './peers/program.ts'
import type { BaseSizes, Figures, Form, Need, Scenario } from './scenario.ts'
import type { Stand } from './stand.ts'
import { median } from './statistics.ts'

export interface Result {
  scenario: Scenario
  form: Form
  sizes: Record<string, number>
  /** Said when the machine does not allow the size that was asked for. */
  scaled?: string
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
  const scaled = scaleDown(sizes)
  if (scaled) stand.say(`${scenario.name} is ${scaled}`)
  const startedAt = performance.now()
  const subjects = scenario.subjects.map(({ name, needs }): SubjectResult => {
    const absent = needs && missing(needs)
    return { name, rounds: [], medians: {}, ...(absent ? { absent } : {}) }
  })
  for (let round = 1; round <= sizes.rounds; round++) {
    for (const [index, result] of subjects.entries()) {
      if (result.absent ?? result.failure) continue
      stand.measuring = scenario.name
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
  const seconds = (performance.now() - startedAt) / 1000
  return { scenario, form, sizes: { ...sizes }, ...(scaled ? { scaled } : {}), seconds, subjects }
}

const FILES_BESIDE_SOCKETS = 500

/** Every device is an open file of the server and one of the load. */
function scaleDown(sizes: BaseSizes & { devices?: number }): string | undefined {
  const most = openFileLimit() - FILES_BESIDE_SOCKETS
  const { devices } = sizes
  if (devices === undefined || devices <= most) return undefined
  sizes.devices = most
  return `scaled down from ${devices} to ${most} devices: a process may have ${openFileLimit()} open files`
}

function missing({ program, debianPackage }: Need): string | undefined {
  return locate(program) ? undefined : `absent: ${program} is not installed (apt-get install ${debianPackage})`
}

/** What the rounds found of one figure, without those that found nothing. */
export const measured = (rounds: Figures[], name: FigureName): number[] =>
  rounds.map((round) => round[name]).filter((value) => value !== undefined && !Number.isNaN(value)) as number[]

function medianOf(rounds: Figures[]): Figures {
  const names = Object.keys(FIGURES) as FigureName[]
  return Object.fromEntries(
    names
      .map((name) => [name, measured(rounds, name)] as const)
      .filter(([, values]) => values.length > 0)
      .map(([name, values]) => [name, median(values)]),
  )
}
