import type { CreateOrders } from '../load/create-load.ts'
import type { RateLoad } from '../load/rate-load.ts'
import { startPart } from '../part.ts'
import { measureRate, type RateSizes } from '../rate.ts'
import { type BaseSizes, scenario } from '../scenario.ts'
import { checkLedger, startOurs } from './ours.ts'

interface Sizes extends BaseSizes, RateSizes {
  clients: number
  connections: number
}

const LOAD = new URL('../load/create-load.ts', import.meta.url)

export const create = scenario<Sizes>({
  name: 'create',
  measures: 'durable POST /commands, targets offline',
  sizes: {
    full: { rounds: 5, clients: 1000, connections: 64, warmSeconds: 3, seconds: 10 },
    quick: { rounds: 1, clients: 1000, connections: 64, warmSeconds: 1, seconds: 2 },
    smoke: { rounds: 1, clients: 20, connections: 4, warmSeconds: 0.1, seconds: 0.2 },
  },
  subjects: [
    {
      name: 'signalbox',
      async measure(stand, sizes) {
        await using ours = await startOurs(stand, sizes.clients)
        const clientIds = ours.accounts.map(({ id }) => id)
        const orders: CreateOrders = { ...ours.api, clientIds, connections: sizes.connections, expected: 201 }
        await using load = await startPart<RateLoad>(LOAD, orders)
        const { figures, begun } = await measureRate(load, ours.watched, sizes)
        await checkLedger(ours.database, begun, 'pending')
        return figures
      },
    },
  ],
  bars: [],
})
