import { setTimeout as sleep } from 'node:timers/promises'
import type { FigureName } from './figures.ts'
import type { RateLoad } from './load/rate-load.ts'
import type { Part } from './part.ts'
import { cpuMicros } from './processes.ts'
import type { Figures } from './scenario.ts'
import { percentile } from './statistics.ts'

export interface RateSizes {
  warmSeconds: number
  seconds: number
}

/** Counters that are read before and after: the figure is by how much one command raised it. */
export type Watched = Partial<Record<FigureName, () => number | Promise<number>>>

/** Lets a load run, looks at it once it is warm, and ends it. Answers the figures and how many were begun in all. */
export async function measureRate(
  load: Part<RateLoad>,
  watched: Watched,
  { warmSeconds, seconds }: RateSizes,
): Promise<{ figures: Figures; begun: number }> {
  const counters = Object.entries({ ...watched, loadCpu: () => cpuMicros(load.pid) })
  const read = (): Promise<number[]> => Promise.all(counters.map(([, count]) => count()))
  await load.call.start()
  // However slow the machine is: it is warm when something was done.
  do await sleep(warmSeconds * 1000)
  while ((await load.call.take()).count === 0)
  const before = await read()
  await sleep(seconds * 1000)
  const taken = await load.call.take()
  const after = await read()
  const begun = await load.call.finish()
  // In a very short run nothing may have been done.
  const commands = taken.count || Number.NaN
  const each: Figures = Object.fromEntries(
    counters.map(([name], index) => [name, ((after[index] as number) - (before[index] as number)) / commands]),
  )
  const figures: Figures = {
    rate: taken.count / taken.seconds,
    p50: percentile(taken.latencies, 0.5),
    p99: percentile(taken.latencies, 0.99),
    ...each,
    loadBusy: (((each.loadCpu as number) * taken.count) / taken.seconds / 1e6) * 100,
  }
  return { figures, begun }
}
