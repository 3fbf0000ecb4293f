import type { LifecycleLoad, LifecycleOrders } from '../load/lifecycle-load.ts'
import type { RateLoad } from '../load/rate-load.ts'
import { startPart } from '../part.ts'
import type { BullmqOrders } from '../peers/bullmq-load.ts'
import { REDIS, startRedis } from '../peers/redis.ts'
import { cpuMicros } from '../processes.ts'
import { measureRate, type RateSizes } from '../rate.ts'
import { type BaseSizes, type Figures, type Form, scenario } from '../scenario.ts'
import type { Stand } from '../stand.ts'
import { agents, checkLedger, type Ours, type Setup, startOurs } from './ours.ts'
import { measurePgBoss } from './pg-boss.ts'

export interface LifecycleSizes extends RateSizes {
  devices: number
  connections: number
  /** Created and not completed at once. */
  outstanding: number
  /** Of commands: created at another node than that of their device. */
  elsewhere?: number
}
type Sizes = BaseSizes & LifecycleSizes

/** Whatever measures the lifecycle measures it in these sizes, and in others only where it says so. */
export const LIFECYCLE: Record<Form, Sizes> = {
  full: { rounds: 5, devices: 1000, connections: 64, outstanding: 1000, warmSeconds: 5, seconds: 10 },
  quick: { rounds: 1, devices: 1000, connections: 64, outstanding: 1000, warmSeconds: 2, seconds: 3 },
  smoke: { rounds: 1, devices: 10, connections: 4, outstanding: 20, warmSeconds: 0.2, seconds: 0.5 },
}

const LOAD = new URL('../load/lifecycle-load.ts', import.meta.url)

/** The devices are spread over the nodes evenly. */
export const lifecycleOrders = ({ api, nodes, accounts }: Ours, sizes: LifecycleSizes): LifecycleOrders => ({
  ...sizes,
  token: api.token,
  nodes: nodes.map(({ http, mqttPort }, node) => {
    const here = accounts.filter((_, index) => index % nodes.length === node)
    return { origin: http, fleet: agents(mqttPort, here) }
  }),
})

/** Commands that are created and done as fast as they can be, by devices that stay connected. */
export async function measureLifecycle(
  ours: Ours,
  sizes: LifecycleSizes,
): Promise<{ figures: Figures; begun: number }> {
  await using load = await startPart<LifecycleLoad>(LOAD, lifecycleOrders(ours, sizes))
  await load.call.connect()
  return await measureRate(load, ours.watched, sizes)
}

/** The same on a database of its own, without any history. Throws unless everything that was begun is completed. */
export async function measureNewLifecycle(stand: Stand, sizes: LifecycleSizes, setup?: Setup): Promise<Figures> {
  await using ours = await startOurs(stand, sizes.devices, setup)
  const { figures, begun } = await measureLifecycle(ours, sizes)
  await checkLedger(ours.database, begun, 'completed')
  return figures
}

export const lifecycle = scenario<Sizes>({
  name: 'lifecycle',
  measures: 'HTTP create, PUBACK, running, completed, all committed',
  sizes: LIFECYCLE,
  subjects: [
    { name: 'signalbox', measure: measureNewLifecycle },
    {
      name: 'pg-boss',
      async measure(stand, sizes) {
        const { connections: callers, outstanding } = sizes
        return measurePgBoss(stand, { callers, outstanding, workers: 4 }, sizes)
      },
    },
    {
      name: 'bullmq',
      needs: REDIS,
      async measure(stand, sizes) {
        await using redis = await startRedis(stand.directory, 'bullmq')
        const { socketPath } = redis
        const orders: BullmqOrders = { ...sizes, socketPath, callers: sizes.connections, concurrency: 100 }
        await using load = await startPart<RateLoad>(new URL('../peers/bullmq-load.ts', import.meta.url), orders)
        return (await measureRate(load, { databaseCpu: () => cpuMicros(redis.pid) }, sizes)).figures
      },
    },
  ],
  bars: [
    { figure: 'rate', is: 'at least', bar: 3000, goal: 6000 },
    { figure: 'rate', against: { subject: 'pg-boss', by: 'ratio' }, is: 'at least', bar: 2 },
    { figure: 'rate', against: { subject: 'bullmq', by: 'ratio' }, is: 'at least', bar: 0.2 },
  ],
})
