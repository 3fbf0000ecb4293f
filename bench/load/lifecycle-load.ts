import { createFleet, type Device, type FleetOrders } from './fleet.ts'
import { openHttp } from './http.ts'
import { createRateLoad, type RateLoad } from './rate-load.ts'
import { commandFor, type Done, resume, work } from './work.ts'

export interface LifecycleOrders {
  origin: string
  token: string
  fleet: FleetOrders
  connections: number
  outstanding: number
  /** Begun per second; without it as many as there can be. */
  perSecond?: number
  /** Devices that lose their connection and come back, per second. */
  reconnectsPerSecond?: number
}

export interface LifecycleLoad extends RateLoad {
  connect(): Promise<void>
  /** How often a device came back so far. */
  reconnects(): number
}

/** Callers that post commands and devices that do them, in one process. A command is done when `completed` has its PUBACK. */
export function create(orders: LifecycleOrders): LifecycleLoad {
  const { accounts } = orders.fleet
  const http = openHttp(orders.origin, { token: orders.token, connections: orders.connections })
  let onDone: (n: number) => void = () => undefined
  const done: Done = ({ n }) => onDone(n)
  const fleet = createFleet(orders.fleet, (device, packet) => work(device, packet, done))
  const load = createRateLoad({
    callers: orders.connections,
    outstanding: orders.outstanding,
    ...(orders.perSecond === undefined ? {} : { perSecond: orders.perSecond }),
    async begin(n, isDone) {
      onDone = isDone
      const clientId = accounts[n % accounts.length]?.id as string
      await http.post('/api/commands', commandFor(clientId, n))
    },
  })
  let reconnects = 0
  let turn = 0
  const reconnect = async (): Promise<void> => {
    const device = fleet.devices[turn++ % fleet.devices.length] as Device
    device.connection.drop()
    await fleet.connect([device])
    resume(device, done)
    reconnects++
  }
  let timer: NodeJS.Timeout | undefined
  return {
    connect: () => fleet.connect(),
    reconnects: () => reconnects,
    start() {
      load.start()
      if (!orders.reconnectsPerSecond) return
      timer = setInterval(() => reconnect().catch(load.fail), 1000 / orders.reconnectsPerSecond)
    },
    take() {
      fleet.check()
      return load.take()
    },
    finish() {
      clearInterval(timer)
      return load.finish()
    },
  }
}
