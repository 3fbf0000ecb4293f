import { createFleet, type Device, type FleetOrders } from './fleet.ts'
import { openHttp } from './http.ts'
import { commandFor, work } from './work.ts'

export interface BacklogOrders {
  origin: string
  token: string
  fleet: FleetOrders
  perDevice: number
}

export interface BacklogLoad {
  /** Commands for every device, while all are away. */
  post(): Promise<void>
  /** All of them connect; resolves when everything is done. */
  connect(): Promise<{ /** Per device: ms from its SYN to its first command. */ first: Float64Array; seconds: number }>
}

const CALLERS = 32

/** Devices that come back to what has been waiting for them. */
export function create({ origin, token, fleet: orders, perDevice }: BacklogOrders): BacklogLoad {
  const { accounts } = orders
  const all = Promise.withResolvers<void>()
  const first = new Map<Device, number>()
  let open = accounts.length * perDevice
  const fleet = createFleet(orders, (device, packet) => {
    if (!first.has(device)) first.set(device, performance.now() - device.connection.openedAt)
    work(device, packet, () => {
      if (--open === 0) all.resolve()
    })
  })
  return {
    async post() {
      await using http = openHttp(origin, { token, connections: CALLERS })
      const total = open
      let next = 0
      const caller = async (): Promise<void> => {
        for (let n = next++; n < total; n = next++) {
          const clientId = accounts[n % accounts.length]?.id as string
          await http.post('/api/commands', commandFor(clientId, n))
        }
      }
      await Promise.all(Array.from({ length: CALLERS }, caller))
    },
    async connect() {
      const startedAt = performance.now()
      await fleet.connect()
      await all.promise
      fleet.check()
      return { first: Float64Array.from(first.values()), seconds: (performance.now() - startedAt) / 1000 }
    },
  }
}
