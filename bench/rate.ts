import { setTimeout as sleep } from 'node:timers/promises'
import type { RateLoad } from './load/rate-load.ts'
import type { Part } from './part.ts'
import { cpuSeconds } from './processes.ts'
import type { Figures } from './scenario.ts'
import { percentile } from './statistics.ts'

export interface RateSizes {
  warmSeconds: number
  seconds: number
}

/** Whose CPU time is told apart from the load's: each answers its seconds so far. */
export interface Watched {
  server?: () => number
  database?: () => number
}

/** Lets a load run, looks at it once it is warm, and ends it. Answers the figures and how many were begun in all. */
export async function measureRate(
  load: Part<RateLoad>,
  watched: Watched,
  { warmSeconds, seconds }: RateSizes,
): Promise<{ figures: Figures; begun: number }> {
  const used = () => ({
    server: watched.server?.() ?? Number.NaN,
    database: watched.database?.() ?? Number.NaN,
    load: cpuSeconds(load.pid),
  })
  await load.call.start()
  // However slow the machine is: it is warm when something was done.
  do await sleep(warmSeconds * 1000)
  while ((await load.call.take()).count === 0)
  const before = used()
  await sleep(seconds * 1000)
  const taken = await load.call.take()
  const after = used()
  const begun = await load.call.finish()
  // In a very short run nothing may have been done.
  const each = (who: keyof typeof before): number => ((after[who] - before[who]) * 1e6) / (taken.count || Number.NaN)
  const figures: Figures = {
    rate: taken.count / taken.seconds,
    p50: percentile(taken.latencies, 0.5),
    p99: percentile(taken.latencies, 0.99),
    serverCpu: each('server'),
    databaseCpu: each('database'),
    loadCpu: each('load'),
    loadBusy: ((after.load - before.load) / taken.seconds) * 100,
  }
  return { figures, begun }
}
