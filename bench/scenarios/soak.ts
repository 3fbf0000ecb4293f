import { setTimeout as sleep } from 'node:timers/promises'
import type { LifecycleLoad, LifecycleOrders } from '../load/lifecycle-load.ts'
import { type Part, startPart } from '../part.ts'
import { memoryMiB } from '../processes.ts'
import { type BaseSizes, scenario } from '../scenario.ts'
import { median, percentile } from '../statistics.ts'
import { type LifecycleSizes, lifecycleOrders, measureLifecycle } from './lifecycle.ts'
import { checkLedger, type Ours, startOurs } from './ours.ts'

interface Sizes extends BaseSizes, LifecycleSizes {
  minutes: number
  /** Of the lifecycle rate, which is measured first. */
  share: number
  reconnectsPerSecond: number
}

const LOAD = new URL('../load/lifecycle-load.ts', import.meta.url)
const LOOKS = 10

/** A part of the time: what was done, the memory as it mostly was, and what a command cost in µs of CPU. */
interface Span {
  seconds: number
  latencies: Float64Array
  memory: number
  serverCpu: number
  databaseCpu: number
}

async function watch({ cpu, server }: Ours, load: Part<LifecycleLoad>, seconds: number): Promise<Span> {
  const before = { server: cpu.server(), database: cpu.database() }
  const memory: number[] = []
  for (let look = 0; look < LOOKS; look++) {
    await sleep((seconds * 1000) / LOOKS)
    memory.push(memoryMiB(server.pid))
  }
  const taken = await load.call.take()
  // In a very short run nothing may have been done.
  const commands = taken.count || Number.NaN
  return {
    seconds: taken.seconds,
    latencies: taken.latencies,
    memory: median(memory),
    serverCpu: (cpu.server() - before.server) / commands,
    databaseCpu: (cpu.database() - before.database) / commands,
  }
}

/** A third of the time, minute by minute. */
async function watchThird(ours: Ours, load: Part<LifecycleLoad>, minutes: number, say: (line: string) => void) {
  const spans: Span[] = []
  for (let left = minutes; left > 0; left--) {
    const span = await watch(ours, load, Math.min(left, 1) * 60)
    spans.push(span)
    const { seconds, latencies, memory, serverCpu, databaseCpu } = span
    const cpu = `${Math.round(serverCpu)} µs of the server and ${Math.round(databaseCpu)} of the database each`
    const [p50, p99] = [0.5, 0.99].map((part) => percentile(latencies, part).toFixed(1))
    say(`${Math.round(latencies.length / seconds)}/s, p50 ${p50} ms, p99 ${p99}, ${cpu}, ${Math.round(memory)} MiB`)
  }
  const all = spans.flatMap(({ latencies }) => [...latencies])
  const mean = (of: (span: Span) => number): number =>
    spans.reduce((sum, span) => sum + of(span) * span.latencies.length, 0) / all.length
  return {
    rate: all.length / spans.reduce((sum, { seconds }) => sum + seconds, 0),
    p50: percentile(all, 0.5),
    p99: percentile(all, 0.99),
    memory: median(spans.map((span) => span.memory)),
    serverCpu: mean((span) => span.serverCpu),
    databaseCpu: mean((span) => span.databaseCpu),
  }
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
        const third = () => watchThird(ours, load, sizes.minutes / 3, (line) => stand.say(`soak: ${line}`))
        await third()
        const middle = await third()
        const last = await third()
        const begun = await load.call.finish()
        await checkLedger(ours.database, before + begun, 'completed')
        return {
          ...last,
          memoryDrift: last.memory / middle.memory,
          latencyDrift: last.p50 / middle.p50,
          serverDrift: last.serverCpu / middle.serverCpu,
          databaseDrift: last.databaseCpu / middle.databaseCpu,
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
