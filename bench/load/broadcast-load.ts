import { setTimeout as sleep } from 'node:timers/promises'
import type * as mqtt from 'mqtt-packet'
import { buildTopic } from '../../schemas/topics.ts'
import { createFleet, type Device, type FleetOrders, ROOT } from './fleet.ts'
import { openHttp } from './http.ts'
import { type Connection, openPublisher } from './mqtt.ts'
import { commandFor, type Label, messageFor, work } from './work.ts'

export interface BroadcastOrders {
  fleet: FleetOrders
  /** Where the command is posted; without it, one connection publishes the message, as a broker alone would be used. */
  api?: { origin: string; token: string }
  /** Milliseconds between the commands that others send meanwhile. */
  othersEveryMs: number
}

export interface Broadcast {
  /** From the POST or the PUBLISH, in ms. */
  first: number
  last: number
  /** Until every device has the PUBACK of its `completed`. */
  completed: number
  /** How long the POSTs of others took meanwhile. */
  others: Float64Array
}

export interface BroadcastLoad {
  connect(): Promise<void>
  broadcast(): Promise<Broadcast>
}

/** The label of the broadcast; commands of others count from 1. */
const TO_ALL = 0

/** One message to every device of a fleet, watched from the process that has all of them. */
export function create(orders: BroadcastOrders): BroadcastLoad {
  return orders.api ? throughTheApi(orders, orders.api) : throughTheBroker(orders)
}

/** Counts to the number of devices, and knows when each count came. */
function createCount(most: number) {
  const all = Promise.withResolvers<void>()
  const count = { first: 0, last: 0, seen: 0, all: all.promise, add }
  function add(): void {
    const now = performance.now()
    if (count.seen++ === 0) count.first = now
    count.last = now
    if (count.seen === most) all.resolve()
  }
  return count
}

function throughTheApi(
  { fleet: orders, othersEveryMs }: BroadcastOrders,
  api: { origin: string; token: string },
): BroadcastLoad {
  const http = openHttp(api.origin, { token: api.token, connections: 16 })
  const devices = orders.accounts.length
  let receipts = createCount(devices)
  let completions = createCount(devices)
  let pendingOthers = 0
  const done = ({ n }: Label): void => (n === TO_ALL ? completions.add() : void pendingOthers--)
  const fleet = createFleet(orders, (device, packet) => {
    if (packet.topic.endsWith('broadcast/commands')) receipts.add()
    work(device, packet, done)
  })

  const post = (body: string): Promise<string> => http.post('/api/commands', body)
  /** One command after the other at fixed times, whether or not the one before is answered. */
  async function others(until: Promise<unknown>): Promise<number[]> {
    const answers: Promise<number>[] = []
    let ended = false
    void until.then(() => {
      ended = true
    })
    for (let n = 1; !ended; n++) {
      const startedAt = performance.now()
      pendingOthers++
      const id = orders.accounts[(n * 7919) % devices]?.id as string
      answers.push(post(commandFor(id, n)).then(() => performance.now() - startedAt))
      await sleep(othersEveryMs)
    }
    return Promise.all(answers)
  }
  return {
    connect: () => fleet.connect(),
    async broadcast() {
      receipts = createCount(devices)
      completions = createCount(devices)
      const body = JSON.stringify({ broadcast: true, action: 'bench.run', payload: { n: TO_ALL } })
      const startedAt = performance.now()
      const [latencies] = await Promise.all([others(completions.all), post(body), completions.all])
      while (pendingOthers > 0) await sleep(10)
      fleet.check()
      return {
        first: receipts.first - startedAt,
        last: receipts.last - startedAt,
        completed: completions.last - startedAt,
        others: Float64Array.from(latencies),
      }
    },
  }
}

function throughTheBroker({ fleet: orders }: BroadcastOrders): BroadcastLoad {
  let receipts = createCount(orders.accounts.length)
  let publisher: Connection
  const fleet = createFleet(orders, (device: Device, packet: mqtt.IPublishPacket) => {
    receipts.add()
    device.connection.puback(packet.messageId as number)
  })
  return {
    async connect() {
      await fleet.connect()
      publisher = await openPublisher(orders.port)
    },
    async broadcast() {
      receipts = createCount(orders.accounts.length)
      const startedAt = performance.now()
      publisher.publish(buildTopic(ROOT, 'broadcastCommands'), messageFor(TO_ALL), () => undefined)
      await receipts.all
      fleet.check()
      const { first, last } = receipts
      return { first: first - startedAt, last: last - startedAt, completed: Number.NaN, others: new Float64Array() }
    },
  }
}
