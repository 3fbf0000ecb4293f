import { setTimeout as sleep } from 'node:timers/promises'
import type { LifecycleLoad, LifecycleOrders } from '../load/lifecycle-load.ts'
import type { Taken } from '../load/rate-load.ts'
import { type Part, startPart } from '../part.ts'
import { memoryMiB } from '../processes.ts'
import { type BaseSizes, scenario } from '../scenario.ts'
import { median, percentile } from '../statistics.ts'
import { type LifecycleSizes, lifecycleOrders, measureLifecycle } from './lifecycle.ts'
import { checkLedger, startOurs } from './ours.ts'

interface Sizes extends BaseSizes, LifecycleSizes {
  minutes: number
  /** Of the lifecycle rate, which is measured first. */
  share: number
  reconnectsPerSecond: number
}

const LOAD = new URL('../load/lifecycle-load.ts', import.meta.url)
const LOOKS_PER_THIRD = 100

/** A third of the time: the memory as it mostly was, and what was done. */
async function watch(load: Part<LifecycleLoad>, pid: number, seconds: number): Promise<Taken & { memory: number }> {
  const memory: number[] = []
  for (let look = 0; look < LOOKS_PER_THIRD; look++) {
    await sleep((seconds * 1000) / LOOKS_PER_THIRD)
    memory.push(memoryMiB(pid))
  }
  return { ...(await load.call.take()), memory: median(memory) }
}

export const soak = scenario<Sizes>({
  name: 'soak',
  measures: 'half the lifecycle rate for a long time, while devices lose their connections and come back',
  onRequest: true,
  sizes: {
    full: {
      rounds: 1,
      devices: 1000,
      connections: 64,
      outstanding: 5000,
      warmSeconds: 5,
      seconds: 15,
      minutes: 30,
      share: 0.5,
      reconnectsPerSecond: 10,
    },
    quick: {
      rounds: 1,
      devices: 1000,
      connections: 64,
      outstanding: 5000,
      warmSeconds: 2,
      seconds: 3,
      minutes: 0.5,
      share: 0.5,
      reconnectsPerSecond: 10,
    },
    smoke: {
      rounds: 1,
      devices: 10,
      connections: 4,
      outstanding: 100,
      warmSeconds: 0.2,
      seconds: 0.5,
      minutes: 0.02,
      share: 0.5,
      reconnectsPerSecond: 10,
    },
  },
  subjects: [
    {
      name: 'signalbox',
      async measure(stand, sizes) {
        await using ours = await startOurs(stand, sizes.devices)
        const { figures, begun: before } = await measureLifecycle(ours, { ...sizes, outstanding: sizes.devices })
        // In a very short run nothing may have been done.
        const perSecond = Math.max(1, (figures.rate ?? 0) * sizes.share)
        stand.say(`soak: ${Math.round(perSecond)} commands per second for ${sizes.minutes} minutes`)

        const { reconnectsPerSecond } = sizes
        const orders: LifecycleOrders = { ...lifecycleOrders(ours, sizes), perSecond, reconnectsPerSecond }
        await using load = await startPart<LifecycleLoad>(LOAD, orders)
        await load.call.connect()
        await load.call.start()
        const third = (): Promise<Taken & { memory: number }> => watch(load, ours.server.pid, sizes.minutes * 20)
        await third()
        const middle = await third()
        const last = await third()
        const begun = await load.call.finish()
        await checkLedger(ours.database, before + begun, 'completed')
        return {
          rate: last.count / last.seconds,
          p50: percentile(last.latencies, 0.5),
          p99: percentile(last.latencies, 0.99),
          memory: last.memory,
          memoryDrift: last.memory / middle.memory,
          latencyDrift: percentile(last.latencies, 0.5) / percentile(middle.latencies, 0.5),
          reconnects: await load.call.reconnects(),
        }
      },
    },
  ],
  bars: [
    { figure: 'memoryDrift', is: 'at most', bar: 1.1 },
    { figure: 'latencyDrift', is: 'at most', bar: 1.1 },
  ],
})
