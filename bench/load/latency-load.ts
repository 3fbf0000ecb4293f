import { setTimeout as sleep } from 'node:timers/promises'
import { buildTopic } from '../../schemas/topics.ts'
import { createFleet, type FleetOrders, ROOT } from './fleet.ts'
import { openHttp } from './http.ts'
import { openPublisher } from './mqtt.ts'
import { commandFor, type Label, messageFor, work } from './work.ts'

export interface LatencyOrders {
  fleet: FleetOrders
  /** Where commands are posted; without it one connection publishes the messages, as a broker alone would be used. */
  api?: { origin: string; token: string }
}

export interface LatencyLoad {
  connect(): Promise<void>
  /** One after the other, to one device after the other. */
  send(count: number, how: { wait: boolean; pauseMs: number }): Promise<Latencies>
}

/** In ms, from the beginning of the POST or the PUBLISH. */
export interface Latencies {
  /** Until the device has it. */
  delivery: Float64Array
  /** Until the answer, or the PUBACK. */
  answer: Float64Array
}

/** Sends the nth command; resolves with its answer. */
type Send = (clientId: string, n: number, wait: boolean) => Promise<void>

/** One command at a time, in a process that sees both ends. */
export function create({ fleet: orders, api }: LatencyOrders): LatencyLoad {
  const receivedAt = new Map<number, number>()
  let onDone: (label: Label) => void = () => undefined
  const fleet = createFleet(orders, (device, packet) => {
    const at = performance.now()
    const label: Label = JSON.parse(packet.payload.toString()).payload
    receivedAt.set(label.n, at)
    if (api) return work(device, packet, (of) => onDone(of))
    device.connection.puback(packet.messageId as number)
    onDone(label)
  })
  let send: Send
  let next = 0
  return {
    async connect() {
      await fleet.connect()
      send = api ? posting(api) : await publishing(orders.port)
    },
    async send(count, { wait, pauseMs }) {
      const latencies = { delivery: new Float64Array(count), answer: new Float64Array(count) }
      for (let index = 0; index < count; index++) {
        fleet.check()
        const n = next++
        const over = new Promise<void>((resolve) => {
          onDone = (label) => label.n === n && resolve()
        })
        const startedAt = performance.now()
        await send(orders.accounts[n % orders.accounts.length]?.id as string, n, wait)
        latencies.answer[index] = performance.now() - startedAt
        await over
        latencies.delivery[index] = (receivedAt.get(n) as number) - startedAt
        receivedAt.delete(n)
        await sleep(pauseMs)
      }
      return latencies
    },
  }
}

function posting({ origin, token }: { origin: string; token: string }): Send {
  const http = openHttp(origin, { token, connections: 1 })
  return async (clientId, n, wait) => {
    const text = await http.post(`/api/commands${wait ? '?wait=30' : ''}`, commandFor(clientId, n))
    if (wait && JSON.parse(text).status !== 'completed') throw new Error(`answered before it was completed: ${text}`)
  }
}

async function publishing(port: number): Promise<Send> {
  const publisher = await openPublisher(port)
  return (clientId, n) =>
    new Promise((resolve) =>
      publisher.publish(buildTopic(ROOT, 'clientCommands', { clientId }), messageFor(n), resolve),
    )
}
