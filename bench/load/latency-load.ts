import { setTimeout as sleep } from 'node:timers/promises'
import { createFleet, type FleetOrders } from './fleet.ts'
import { openHttp } from './http.ts'
import { commandFor, type Label, work } from './work.ts'

export interface LatencyOrders {
  origin: string
  token: string
  fleet: FleetOrders
}

export interface LatencyLoad {
  connect(): Promise<void>
  /** One after the other with pauses between. Answers ms from the POST to the device, and to its answer if it waits. */
  post(
    count: number,
    options: { wait: boolean; pauseMs: number },
  ): Promise<{ delivery: Float64Array; answer: Float64Array }>
}

/** One command at a time to one device after the other, in a process that sees both ends. */
export function create({ origin, token, fleet: orders }: LatencyOrders): LatencyLoad {
  const http = openHttp(origin, { token, connections: 1 })
  const receivedAt = new Map<number, number>()
  let onDone: (label: Label) => void = () => undefined
  const fleet = createFleet(orders, (device, packet) => {
    const at = performance.now()
    receivedAt.set(JSON.parse(packet.payload.toString()).payload.n, at)
    work(device, packet, (label) => onDone(label))
  })
  let next = 0
  return {
    connect: () => fleet.connect(),
    async post(count, { wait, pauseMs }) {
      const delivery: number[] = []
      const answer: number[] = []
      const ids = orders.accounts.map(({ id }) => id)
      for (let index = 0; index < count; index++) {
        fleet.check()
        const n = next++
        const finished = new Promise<void>((resolve) => {
          onDone = (label) => label.n === n && resolve()
        })
        const startedAt = performance.now()
        const { status, text } = await http.post(
          `/api/commands${wait ? '?wait=30' : ''}`,
          commandFor(ids[n % ids.length] as string, n),
        )
        answer.push(performance.now() - startedAt)
        if (status !== 201) throw new Error(`POST /api/commands: ${status} ${text}`)
        if (wait && JSON.parse(text).status !== 'completed')
          throw new Error(`answered before it was completed: ${text}`)
        await finished
        delivery.push((receivedAt.get(n) as number) - startedAt)
        receivedAt.delete(n)
        await sleep(pauseMs)
      }
      return { delivery: Float64Array.from(delivery), answer: Float64Array.from(answer) }
    },
  }
}
