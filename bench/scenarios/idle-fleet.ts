import { setTimeout as sleep } from 'node:timers/promises'
import type { FleetLoad } from '../load/fleet-load.ts'
import { startPart } from '../part.ts'
import { cpuMicros, memoryMiB } from '../processes.ts'
import { type BaseSizes, scenario } from '../scenario.ts'
import { BARE_AEDES, BARE_MOSQUITTO, type Broker, equalFleet, measuredBy, OURS } from './brokers.ts'

interface Sizes extends BaseSizes {
  devices: number
  settleSeconds: number
  seconds: number
}

/** The load pings after three quarters of it: every device the same number of times in the full form's time. */
const KEEPALIVE_SECONDS = 20
const LOAD = new URL('../load/fleet-load.ts', import.meta.url)

/** What a process, and the database behind it, takes while nothing happens but pings. */
async function atRest(
  { pid, database = () => Number.NaN }: Broker,
  { settleSeconds, seconds }: Sizes,
): Promise<{ memory: number; cpu: number; databaseCpu: number }> {
  const percent = (micros: number): number => (micros / 1e6 / seconds) * 100
  await sleep(settleSeconds * 1000)
  const before = { server: cpuMicros(pid), database: database() }
  await sleep(seconds * 1000)
  return {
    memory: memoryMiB(pid),
    cpu: percent(cpuMicros(pid) - before.server),
    databaseCpu: percent(database() - before.database),
  }
}

const subject = measuredBy<Sizes>(async (broker, sizes) => {
  const empty = await atRest(broker, sizes)
  await using load = await startPart<FleetLoad>(LOAD, { ...equalFleet(broker), keepaliveSeconds: KEEPALIVE_SECONDS })
  await load.call.connect()
  await broker.allOnline()
  const full = await atRest(broker, sizes)
  await load.call.check()
  return {
    memoryEmpty: empty.memory,
    memoryGrowth: full.memory - empty.memory,
    cpuEmpty: empty.cpu,
    cpuGrowth: full.cpu - empty.cpu,
    databaseCpuGrowth: full.databaseCpu - empty.databaseCpu,
  }
})

export const idleFleet = scenario<Sizes>({
  name: 'idle-fleet',
  measures: 'what the server takes more of when devices are connected that only ping, every 15 s',
  sizes: {
    full: { rounds: 3, devices: 10_000, settleSeconds: 5, seconds: 30 },
    quick: { rounds: 1, devices: 1000, settleSeconds: 1, seconds: 5 },
    smoke: { rounds: 1, devices: 10, settleSeconds: 0, seconds: 0.1 },
  },
  subjects: [OURS, BARE_AEDES, BARE_MOSQUITTO].map(subject),
  bars: [
    { figure: 'memoryGrowth', against: { subject: 'aedes', by: 'ratio' }, is: 'at most', bar: 1.25, goal: 1.1 },
    { figure: 'cpuGrowth', against: { subject: 'aedes', by: 'ratio' }, is: 'at most', bar: 1.25, goal: 1.1 },
  ],
})
