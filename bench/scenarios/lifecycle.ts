import type { LifecycleLoad, LifecycleOrders } from '../load/lifecycle-load.ts'
import type { RateLoad } from '../load/rate-load.ts'
import { startPart } from '../part.ts'
import type { BullmqOrders } from '../peers/bullmq-load.ts'
import { REDIS, startRedis } from '../peers/redis.ts'
import { cpuSeconds } from '../processes.ts'
import { measureRate, type RateSizes } from '../rate.ts'
import { type BaseSizes, scenario } from '../scenario.ts'
import { agents, checkLedger, startOurs } from './ours.ts'
import { measurePgBoss } from './pg-boss.ts'

interface Sizes extends BaseSizes, RateSizes {
  devices: number
  connections: number
  /** Created and not completed at once. */
  outstanding: number
}

const LOAD = new URL('../load/lifecycle-load.ts', import.meta.url)

export const lifecycle = scenario<Sizes>({
  name: 'lifecycle',
  measures: 'HTTP create, PUBACK, running, completed, all committed',
  sizes: {
    full: { rounds: 5, devices: 1000, connections: 64, outstanding: 1000, warmSeconds: 5, seconds: 10 },
    quick: { rounds: 1, devices: 1000, connections: 64, outstanding: 1000, warmSeconds: 2, seconds: 3 },
    smoke: { rounds: 1, devices: 10, connections: 4, outstanding: 20, warmSeconds: 0.1, seconds: 0.3 },
  },
  subjects: [
    {
      name: 'signalbox',
      async measure(stand, sizes) {
        await using ours = await startOurs(stand, sizes.devices)
        const orders: LifecycleOrders = { ...ours.api, ...sizes, fleet: agents(ours.server.mqttPort, ours.accounts) }
        await using load = await startPart<LifecycleLoad>(LOAD, orders)
        await load.call.connect()
        const { figures, begun } = await measureRate(load, ours.watched, sizes)
        await checkLedger(ours.database, begun, 'completed')
        return figures
      },
    },
    {
      name: 'pg-boss',
      async measure(stand, sizes) {
        const { connections: callers, outstanding } = sizes
        return measurePgBoss(stand, { callers, outstanding, workers: 2 }, sizes)
      },
    },
    {
      name: 'bullmq',
      needs: REDIS,
      async measure(stand, sizes) {
        await using redis = await startRedis(stand.directory)
        const { socketPath } = redis
        const orders: BullmqOrders = { ...sizes, socketPath, callers: sizes.connections, concurrency: 100 }
        await using load = await startPart<RateLoad>(new URL('../peers/bullmq-load.ts', import.meta.url), orders)
        return (await measureRate(load, { database: () => cpuSeconds(redis.pid) }, sizes)).figures
      },
    },
  ],
  bars: [
    { figure: 'rate', is: 'at least', bar: 3000, goal: 6000 },
    { figure: 'rate', against: { subject: 'pg-boss', by: 'ratio' }, is: 'at least', bar: 2 },
    { figure: 'rate', against: { subject: 'bullmq', by: 'ratio' }, is: 'at least', bar: 0.2 },
  ],
})
