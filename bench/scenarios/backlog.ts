import type { Account } from '../accounts.ts'
import type { BacklogLoad, BacklogOrders } from '../load/backlog-load.ts'
import { startPart } from '../part.ts'
import { type BaseSizes, scenario } from '../scenario.ts'
import { watchSlowQueries } from '../slow-queries.ts'
import { agents, checkLedger, type Ours, startOurs } from './ours.ts'

interface Sizes extends BaseSizes {
  /** Commands that wait for one device. */
  one: number
  devices: number
  /** Commands that wait for each of the others. */
  each: number
}

const LOAD = new URL('../load/backlog-load.ts', import.meta.url)

async function reconnect(
  { api, server }: Ours,
  accounts: Account[],
  perDevice: number,
): Promise<{ first: number; seconds: number }> {
  const orders: BacklogOrders = { ...api, fleet: { ...agents(server.mqttPort, accounts), connecting: 500 }, perDevice }
  await using load = await startPart<BacklogLoad>(LOAD, orders)
  await load.call.post()
  const { first, seconds } = await load.call.connect()
  return { first: Math.max(...first), seconds }
}

export const backlog = scenario<Sizes>({
  name: 'backlog',
  measures: 'one device comes back to a long queue, then many at once to short ones',
  sizes: {
    full: { rounds: 5, one: 1000, devices: 500, each: 20 },
    quick: { rounds: 1, one: 1000, devices: 100, each: 20 },
    smoke: { rounds: 1, one: 10, devices: 9, each: 2 },
  },
  subjects: [
    {
      name: 'signalbox',
      async measure(stand, sizes) {
        const { template } = await stand.accounts(sizes.devices + 1)
        await using database = await stand.createDatabase(template)
        const slow = await watchSlowQueries(stand, database)
        await using ours = await startOurs(stand, sizes.devices + 1, { kept: database })
        const [one, ...many] = ours.accounts
        const single = await reconnect(ours, [one as Account], sizes.one)
        const crowd = await reconnect(ours, many, sizes.each)
        await checkLedger(database, sizes.one + many.length * sizes.each, 'completed')
        const slowest = slow.slowestMs()
        stand.say(`slowest query: ${slowest.ms} ms ${slowest.statement.slice(0, 200)}`)
        return {
          oneFlows: single.first,
          oneDone: single.seconds,
          manyFlow: crowd.first,
          manyDone: crowd.seconds,
          slowestQuery: slowest.ms,
        }
      },
    },
  ],
  bars: [
    { figure: 'oneFlows', is: 'at most', bar: 1000 },
    { figure: 'manyFlow', is: 'at most', bar: 1000 },
    { figure: 'slowestQuery', is: 'at most', bar: 50 },
  ],
})
