import type { FigureName } from './figures.ts'
import type { Stand } from './stand.ts'

/** What is compared in one run: ours first, then its peers, in turn, for several rounds. */
export interface Scenario<Sizes extends BaseSizes = BaseSizes> {
  name: string
  /** What it measures, in one sentence. */
  measures: string
  /** `smoke` only shows that the harness works; `quick` takes seconds; `full` is judged. */
  sizes: Record<Form, Sizes>
  subjects: Subject<Sizes>[]
  bars: Bar[]
  /** Runs only when it is asked for. */
  onRequest?: boolean
}

export type Form = 'full' | 'quick' | 'smoke'

export interface BaseSizes {
  rounds: number
}

export interface Subject<Sizes> {
  name: string
  /** The package of a program that it needs; without it the subject is named as absent. */
  needs?: Need
  /** Starts everything, measures once, checks that the work was done, and stops everything. */
  measure(stand: Stand, sizes: Sizes): Promise<Figures>
}

export interface Need {
  program: string
  debianPackage: string
}

/** What one measurement found. */
export type Figures = Partial<Record<FigureName, number>>

/** What a figure of the first subject has to reach, by itself or against the same figure of a peer. With no limit it is only shown. */
export interface Bar {
  figure: FigureName
  /** The peer's name, and how it is compared with. */
  against?: { subject: string; by: 'ratio' | 'difference' }
  /** Whether `bar` and `goal` are the least or the most that may be. */
  is?: 'at least' | 'at most'
  bar?: number
  goal?: number
}

/** Sizes are read by the scenario that declares them. */
export const scenario = <Sizes extends BaseSizes>(declared: Scenario<Sizes>): Scenario =>
  declared as unknown as Scenario
