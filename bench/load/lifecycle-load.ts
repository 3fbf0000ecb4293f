import { createFleet, type FleetOrders } from './fleet.ts'
import { openHttp } from './http.ts'
import { createRateLoad, type RateLoad } from './rate-load.ts'
import { commandFor, work } from './work.ts'

export interface LifecycleOrders {
  origin: string
  token: string
  fleet: FleetOrders
  connections: number
  outstanding: number
}

export interface LifecycleLoad extends RateLoad {
  connect(): Promise<void>
}

/** Callers that post commands and devices that do them, in one process. A command is done when `completed` has its PUBACK. */
export function create({ origin, token, fleet: orders, connections, outstanding }: LifecycleOrders): LifecycleLoad {
  const http = openHttp(origin, { token, connections })
  let onDone: (n: number) => void = () => undefined
  const fleet = createFleet(orders, (device, packet) => work(device, packet, ({ n }) => onDone(n)))
  const ids = orders.accounts.map(({ id }) => id)
  const load = createRateLoad({
    callers: connections,
    outstanding,
    async begin(n, done) {
      onDone = done
      const { status, text } = await http.post('/api/commands', commandFor(ids[n % ids.length] as string, n))
      if (status !== 201) throw new Error(`POST /api/commands: ${status} ${text}`)
    },
  })
  return {
    ...load,
    connect: () => fleet.connect(),
    take() {
      fleet.check()
      return load.take()
    },
  }
}
