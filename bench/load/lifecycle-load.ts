import { createFleet, type Device, type FleetOrders } from './fleet.ts'
import { openHttp } from './http.ts'
import { createRateLoad, type RateLoad } from './rate-load.ts'
import { commandFor, type Done, resume, unsaid, work } from './work.ts'

export interface LifecycleOrders {
  token: string
  /** Where each is called, and the devices that are connected there. */
  nodes: { origin: string; fleet: FleetOrders }[]
  /** Requests at once, at all nodes together. */
  connections: number
  outstanding: number
  /** The share of commands that are created at another node than that of their device, if there are several. */
  elsewhere?: number
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
  const { token, connections, elsewhere = 0 } = orders
  let onDone: (n: number) => void = () => undefined
  const done: Done = ({ n }) => onDone(n)
  const nodes = orders.nodes.map(({ origin, fleet }) => ({
    http: openHttp(origin, { token, connections }),
    fleet: createFleet(fleet, (device, packet) => work(device, packet, done)),
  }))
  type Node = (typeof nodes)[number]

  /** One device after the other, one of each node in turn. */
  function turnOf(n: number): { home: number; node: Node; device: Device } {
    const home = n % nodes.length
    const node = nodes[home] as Node
    const { devices } = node.fleet
    return { home, node, device: devices[Math.floor(n / nodes.length) % devices.length] as Device }
  }
  /** Whom a caller asks to create a command for a device of that node. */
  function nodeToAsk(home: number): Node {
    const others = nodes.length - 1
    const away = others > 0 && Math.random() < elsewhere ? 1 + Math.floor(Math.random() * others) : 0
    return nodes[(home + away) % nodes.length] as Node
  }

  const load = createRateLoad({
    callers: connections,
    outstanding: orders.outstanding,
    ...(orders.perSecond === undefined ? {} : { perSecond: orders.perSecond }),
    async begin(n, isDone) {
      onDone = isDone
      const { home, device } = turnOf(n)
      await nodeToAsk(home).http.post('/api/commands', commandFor(device.account.id, n))
    },
  })
  let reconnects = 0
  let turn = 0
  const reconnect = async (): Promise<void> => {
    const { node, device } = turnOf(turn++)
    const open = unsaid(device)
    device.connection.drop()
    await node.fleet.connect([device])
    resume(device, open, done)
    reconnects++
  }
  let timer: NodeJS.Timeout | undefined
  return {
    async connect() {
      await Promise.all(nodes.map(({ fleet }) => fleet.connect()))
    },
    reconnects: () => reconnects,
    start() {
      load.start()
      if (!orders.reconnectsPerSecond) return
      timer = setInterval(() => reconnect().catch(load.fail), 1000 / orders.reconnectsPerSecond)
    },
    take() {
      for (const { fleet } of nodes) fleet.check()
      return load.take()
    },
    finish() {
      clearInterval(timer)
      return load.finish()
    },
  }
}
