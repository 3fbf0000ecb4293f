import type { LatencyLoad, LatencyOrders } from '../load/latency-load.ts'
import { startPart } from '../part.ts'
import { type BaseSizes, scenario } from '../scenario.ts'
import { percentile } from '../statistics.ts'
import { agents, startOurs } from './ours.ts'

interface Sizes extends BaseSizes {
  devices: number
  warm: number
  commands: number
  pauseMs: number
}

const LOAD = new URL('../load/latency-load.ts', import.meta.url)

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
        const orders: LatencyOrders = { ...ours.api, fleet: agents(ours.server.mqttPort, ours.accounts) }
        await using load = await startPart<LatencyLoad>(LOAD, orders)
        await load.call.connect()
        const { pauseMs } = sizes
        for (const wait of [false, true]) await load.call.post(sizes.warm, { wait, pauseMs })
        const { delivery } = await load.call.post(sizes.commands, { wait: false, pauseMs })
        const { answer } = await load.call.post(sizes.commands, { wait: true, pauseMs })
        return {
          deliveryP50: percentile(delivery, 0.5),
          deliveryP99: percentile(delivery, 0.99),
          waitP50: percentile(answer, 0.5),
          waitP99: percentile(answer, 0.99),
        }
      },
    },
  ],
  bars: [
    { figure: 'deliveryP50', is: 'at most', bar: 3 },
    { figure: 'deliveryP99', is: 'at most', bar: 15 },
    { figure: 'waitP50', is: 'at most', bar: 6 },
  ],
})
