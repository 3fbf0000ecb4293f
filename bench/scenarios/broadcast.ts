import type { Broadcast, BroadcastLoad, BroadcastOrders } from '../load/broadcast-load.ts'
import { startPart } from '../part.ts'
import { type BaseSizes, type Figures, scenario } from '../scenario.ts'
import type { Database } from '../stand.ts'
import { median, percentile } from '../statistics.ts'
import { BARE_AEDES, BARE_MOSQUITTO, equalFleet, measuredBy } from './brokers.ts'
import { type Ours, startOurs } from './ours.ts'

interface Sizes extends BaseSizes {
  devices: number
  warm: number
  broadcasts: number
  othersEveryMs: number
}

const LOAD = new URL('../load/broadcast-load.ts', import.meta.url)

/** A bare broker has no executions. */
const NOBODY: Ours['cpu'] = { server: () => Number.NaN, database: () => Number.NaN }

/** The figures of the broadcasts after the first ones, which warm it up. The CPU time is that per execution, the others' commands included. */
async function measure(
  orders: BroadcastOrders,
  { devices, warm, broadcasts }: Sizes,
  { server, database }: Ours['cpu'] = NOBODY,
): Promise<Figures> {
  await using load = await startPart<BroadcastLoad>(LOAD, orders)
  await load.call.connect()
  for (let index = 0; index < warm; index++) await load.call.broadcast()
  const before = { server: server(), database: database() }
  const seen: Broadcast[] = []
  for (let index = 0; index < broadcasts; index++) seen.push(await load.call.broadcast())
  const executions = devices * broadcasts
  const used = {
    serverCpu: (server() - before.server) / executions,
    databaseCpu: (database() - before.database) / executions,
  }
  const others = seen.flatMap((each) => [...each.others])
  return {
    firstReceipt: median(seen.map(({ first }) => first)),
    lastReceipt: median(seen.map(({ last }) => last)),
    allCompleted: median(seen.map(({ completed }) => completed / 1000)),
    othersP50: percentile(others, 0.5),
    othersP99: percentile(others, 0.99),
    ...used,
  }
}

/** Throws unless every broadcast is completed by every device, and nothing else is left open. */
async function checkBroadcasts(database: Database, { devices, warm, broadcasts }: Sizes): Promise<void> {
  const counts = await database.query<{ broadcast: boolean; status: string; count: string }>(`
    select c.target ->> 'kind' = 'broadcast' as broadcast, e.status, count(*)
    from executions e join commands c on c.id = e.command_id group by 1, 2`)
  const expected = devices * (warm + broadcasts)
  const [of] = counts.filter((row) => row.broadcast)
  if (Number(of?.count) !== expected || counts.some(({ status }) => status !== 'completed')) {
    throw new Error(`the ledger has ${JSON.stringify(counts)} instead of ${expected} completed`)
  }
}

const peer = measuredBy<Sizes>((broker, sizes) => measure({ fleet: equalFleet(broker), othersEveryMs: 0 }, sizes))

export const broadcast = scenario<Sizes>({
  name: 'broadcast',
  measures: 'one command to all connected devices, which do it and report, while others send commands of their own',
  sizes: {
    full: { rounds: 5, devices: 10_000, warm: 1, broadcasts: 3, othersEveryMs: 20 },
    quick: { rounds: 1, devices: 1000, warm: 1, broadcasts: 2, othersEveryMs: 20 },
    smoke: { rounds: 1, devices: 10, warm: 0, broadcasts: 1, othersEveryMs: 50 },
  },
  subjects: [
    {
      name: 'signalbox',
      async measure(stand, sizes) {
        await using ours = await startOurs(stand, sizes.devices)
        const fleet = equalFleet({ port: ours.server.mqttPort, accounts: ours.accounts })
        const figures = await measure({ fleet, api: ours.api, othersEveryMs: sizes.othersEveryMs }, sizes, ours.cpu)
        await checkBroadcasts(ours.database, sizes)
        return figures
      },
    },
    ...[BARE_AEDES, BARE_MOSQUITTO].map(peer),
  ],
  bars: [
    { figure: 'lastReceipt', against: { subject: 'aedes', by: 'difference' }, is: 'at most', bar: 500, goal: 150 },
    { figure: 'allCompleted', is: 'at most', bar: 6, goal: 3 },
    { figure: 'othersP99', is: 'at most', bar: 200 },
  ],
})
