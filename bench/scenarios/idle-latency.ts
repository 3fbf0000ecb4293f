import type { LatencyLoad, LatencyOrders } from '../load/latency-load.ts'
import { startPart } from '../part.ts'
import { type BaseSizes, type Figures, scenario } from '../scenario.ts'
import { percentile } from '../statistics.ts'
import { BARE_AEDES, BARE_MOSQUITTO, equalFleet, measuredBy } from './brokers.ts'
import { agents, checkLedger, startOurs } from './ours.ts'

interface Sizes extends BaseSizes {
  devices: number
  warm: number
  commands: number
  pauseMs: number
}

const LOAD = new URL('../load/latency-load.ts', import.meta.url)

async function measure(orders: LatencyOrders, { warm, commands, pauseMs }: Sizes): Promise<Figures> {
  await using load = await startPart<LatencyLoad>(LOAD, orders)
  await load.call.connect()
  const ways = orders.api ? [false, true] : [false]
  for (const wait of ways) await load.call.send(warm, { wait, pauseMs })
  const { delivery } = await load.call.send(commands, { wait: false, pauseMs })
  const figures = { deliveryP50: percentile(delivery, 0.5), deliveryP99: percentile(delivery, 0.99) }
  if (!orders.api) return figures
  const { answer } = await load.call.send(commands, { wait: true, pauseMs })
  return { ...figures, waitP50: percentile(answer, 0.5), waitP99: percentile(answer, 0.99) }
}

const peer = measuredBy<Sizes>((broker, sizes) => measure({ fleet: equalFleet(broker) }, sizes))

export const idleLatency = scenario<Sizes>({
  name: 'idle-latency',
  measures: 'one command at a time on an idle server: from the POST to the device, and ?wait to the result',
  sizes: {
    full: { rounds: 5, devices: 100, warm: 300, commands: 500, pauseMs: 5 },
    quick: { rounds: 1, devices: 100, warm: 100, commands: 150, pauseMs: 5 },
    smoke: { rounds: 1, devices: 10, warm: 2, commands: 5, pauseMs: 1 },
  },
  subjects: [
    {
      name: 'signalbox',
      async measure(stand, sizes) {
        await using ours = await startOurs(stand, sizes.devices)
        const fleet = agents(ours.server.mqttPort, ours.accounts)
        const figures = await measure({ fleet, api: ours.api }, sizes)
        await checkLedger(ours.database, 2 * (sizes.warm + sizes.commands), 'completed')
        return figures
      },
    },
    ...[BARE_AEDES, BARE_MOSQUITTO].map(peer),
  ],
  bars: [
    { figure: 'deliveryP50', is: 'at most', bar: 3 },
    { figure: 'deliveryP50', against: { subject: 'aedes', by: 'ratio' }, is: 'at most', goal: 4 },
    { figure: 'deliveryP99', is: 'at most', bar: 15 },
    { figure: 'waitP50', is: 'at most', bar: 6 },
  ],
})
