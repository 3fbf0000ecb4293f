import type { Result, SubjectResult } from './run.ts'
import type { Bar } from './scenario.ts'
import { median } from './statistics.ts'

export interface Verdict {
  bar: Bar
  /** The figure, or its ratio to the peer's, or the difference. */
  value: number | undefined
  verdict: 'goal' | 'met' | 'NOT MET' | 'not reached' | 'no bar' | 'not measured' | 'not judged'
}

/** Compares what was found with the bars. Against a peer the rounds are compared one by one, so that a noisy one counts once. */
export function judge({ scenario, form, subjects }: Result): Verdict[] {
  return scenario.bars.map((bar) => {
    const value = compare(bar, subjects)
    return { bar, value, verdict: form === 'smoke' ? 'not judged' : verdictOn(bar, value) }
  })
}

function compare({ figure, against }: Bar, subjects: SubjectResult[]): number | undefined {
  const [ours] = subjects
  if (!against) return ours?.medians[figure]
  const peer = subjects.find(({ name }) => name === against.subject)
  const compared = (ours?.rounds ?? []).flatMap((round, index) => {
    const [mine, theirs] = [round[figure], peer?.rounds[index]?.[figure]]
    if (mine === undefined || theirs === undefined) return []
    return [against.by === 'ratio' ? mine / theirs : mine - theirs]
  })
  return compared.length > 0 ? median(compared) : undefined
}

function verdictOn({ is, bar, goal }: Bar, value: number | undefined): Verdict['verdict'] {
  if (value === undefined || Number.isNaN(value)) return 'not measured'
  const reaches = (limit: number | undefined): boolean =>
    limit !== undefined && (is === 'at least' ? value >= limit : value <= limit)
  if (bar === undefined && goal === undefined) return 'no bar'
  if (reaches(goal)) return 'goal'
  if (bar === undefined) return 'not reached'
  return reaches(bar) ? 'met' : 'NOT MET'
}
