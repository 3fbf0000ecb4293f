import type { FleetLoad } from '../load/fleet-load.ts'
import { startPart } from '../part.ts'
import { cpuMicros } from '../processes.ts'
import { type BaseSizes, scenario } from '../scenario.ts'
import { BARE_AEDES, BARE_MOSQUITTO, equalFleet, measuredBy, OURS } from './brokers.ts'

interface Sizes extends BaseSizes {
  devices: number
}

const LOAD = new URL('../load/fleet-load.ts', import.meta.url)

const subject = measuredBy<Sizes>(async (broker, { devices }) => {
  await using load = await startPart<FleetLoad>(LOAD, equalFleet(broker))
  const { database = () => Number.NaN } = broker
  const before = { server: cpuMicros(broker.pid), database: database(), load: cpuMicros(load.pid) }
  const startedAt = performance.now()
  await load.call.connect()
  await broker.allOnline()
  const seconds = (performance.now() - startedAt) / 1000
  await load.call.check()
  const used = cpuMicros(load.pid) - before.load
  return {
    rate: devices / seconds,
    serverCpu: (cpuMicros(broker.pid) - before.server) / devices,
    databaseCpu: (database() - before.database) / devices,
    loadCpu: used / devices,
    loadBusy: (used / 1e6 / seconds) * 100,
  }
})

export const connectStorm = scenario<Sizes>({
  name: 'connect-storm',
  measures:
    'devices connect at once, log in, subscribe and are shown online; the peers ask for no key and show nothing',
  sizes: {
    full: { rounds: 5, devices: 10_000 },
    quick: { rounds: 1, devices: 1000 },
    smoke: { rounds: 1, devices: 10 },
  },
  subjects: [OURS, BARE_AEDES, BARE_MOSQUITTO].map(subject),
  bars: [{ figure: 'rate', against: { subject: 'aedes', by: 'ratio' }, is: 'at least', bar: 0.7, goal: 0.9 }],
})
