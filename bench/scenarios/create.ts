import { plainAccounts } from '../accounts.ts'
import type { CreateOrders } from '../load/create-load.ts'
import type { RateLoad } from '../load/rate-load.ts'
import { startPart } from '../part.ts'
import type { KoaServer } from '../peers/koa-server.ts'
import { cpuMicros } from '../processes.ts'
import { measureRate, type RateSizes, type Watched } from '../rate.ts'
import { type BaseSizes, type Figures, scenario } from '../scenario.ts'
import { ADMIN_TOKEN } from '../signalbox.ts'
import { checkLedger, type Ours, startOurs } from './ours.ts'
import { measurePgBoss } from './pg-boss.ts'

export interface CreateSizes extends BaseSizes, RateSizes {
  clients: number
  connections: number
}

const LOAD = new URL('../load/create-load.ts', import.meta.url)

/** Commands that are stored as fast as they can be, for clients that are not connected there. Throws unless all of them wait. */
export async function measureCreate(ours: Ours, sizes: CreateSizes, watched: Watched = ours.watched): Promise<Figures> {
  const clientIds = ours.accounts.map(({ id }) => id)
  const orders: CreateOrders = { ...ours.api, clientIds, connections: sizes.connections, expected: 201 }
  await using load = await startPart<RateLoad>(LOAD, orders)
  const { figures, begun } = await measureRate(load, watched, sizes)
  await checkLedger(ours.database, begun, 'pending')
  return figures
}

export const create = scenario<CreateSizes>({
  name: 'create',
  measures: 'durable POST /commands, targets offline',
  sizes: {
    full: { rounds: 5, clients: 1000, connections: 64, warmSeconds: 3, seconds: 10 },
    quick: { rounds: 1, clients: 1000, connections: 64, warmSeconds: 1, seconds: 2 },
    smoke: { rounds: 1, clients: 10, connections: 4, warmSeconds: 0.2, seconds: 0.5 },
  },
  subjects: [
    {
      name: 'signalbox',
      async measure(stand, sizes) {
        await using ours = await startOurs(stand, sizes.clients)
        return await measureCreate(ours, sizes)
      },
    },
    {
      name: 'koa',
      async measure(_stand, sizes) {
        await using koa = await startPart<KoaServer>(new URL('../peers/koa-server.ts', import.meta.url), {})
        const orders: CreateOrders = {
          origin: await koa.call.origin(),
          token: ADMIN_TOKEN,
          clientIds: plainAccounts(sizes.clients).map(({ id }) => id),
          connections: sizes.connections,
          expected: 204,
        }
        await using load = await startPart<RateLoad>(LOAD, orders)
        return (await measureRate(load, { serverCpu: () => cpuMicros(koa.pid) }, sizes)).figures
      },
    },
    {
      name: 'pg-boss',
      async measure(stand, sizes) {
        const { connections: callers } = sizes
        return measurePgBoss(stand, { callers, outstanding: callers + 1, workers: 0 }, sizes)
      },
    },
  ],
  bars: [
    { figure: 'rate', against: { subject: 'koa', by: 'ratio' }, is: 'at least', bar: 0.4, goal: 0.6 },
    { figure: 'rate', against: { subject: 'pg-boss', by: 'ratio' }, is: 'at least', bar: 3 },
  ],
})
