/** One kind of trouble: what it proves, its two sizes, and how it is run and judged. */
export interface Scenario<Sizes extends Record<string, number> = Record<string, number>> {
  name: string
  proves: string
  /** Within the six minutes that all of them have together, and the one for a night. */
  sizes: { short: Sizes; long: Sizes }
  /** It measures times: nothing runs beside it. */
  alone?: boolean
  /** Throws what is wrong; answers what was seen. */
  run(sizes: Sizes, context: Context): Promise<Figures>
}

export interface Context {
  seed: number
  say(line: string): void
}

export type Figures = Record<string, string | number>

/** Sizes are read by the scenario that declares them. */
export const scenario = <Sizes extends Record<string, number>>(declared: Scenario<Sizes>): Scenario =>
  declared as unknown as Scenario

/** What must hold and does not, one line each. */
export class Violations extends Error {
  constructor(lines: string[]) {
    super(`does not hold:\n${lines.map((line) => `  ${line}`).join('\n')}`)
    this.name = 'Violations'
  }
}

/** What it needs is not to be had here: said, and no failure, except in CI. */
export class NotRun extends Error {}

export function check(holds: boolean, otherwise: string): void {
  if (!holds) throw new Violations([otherwise])
}
