import { fillHistory } from '../past.ts'
import { type BaseSizes, scenario } from '../scenario.ts'
import type { Database, Stand } from '../stand.ts'
import { LIFECYCLE, type LifecycleSizes, measureLifecycle, measureNewLifecycle } from './lifecycle.ts'
import { checkLedger, startOurs } from './ours.ts'

interface Sizes extends BaseSizes, LifecycleSizes {
  settled: number
}

const BEFORE = { warmSeconds: 1, seconds: 1 }

/** A database with that many settled executions: real ones, copied into the past. */
async function createPast(stand: Stand, sizes: Sizes): Promise<Database> {
  const { template } = await stand.accounts(sizes.devices)
  const database = await stand.createDatabase(template)
  {
    await using ours = await startOurs(stand, sizes.devices, { kept: database })
    await measureLifecycle(ours, { ...sizes, ...BEFORE })
  }
  stand.say(`filling in ${sizes.settled} settled executions`)
  await fillHistory(database, sizes.settled)
  return database
}

const settledIn = async (database: Database): Promise<number> =>
  Number((await database.query<{ count: string }>('select count(*) from executions'))[0]?.count)

/** What a settled command takes there, with its indices and all that happened to it. */
async function diskPerCommand(database: Database): Promise<number> {
  const [row] = await database.query<{ bytes: string; count: string }>(`
    select (pg_total_relation_size('commands') + pg_total_relation_size('executions') + pg_total_relation_size('events')) as bytes,
      count(*) from executions`)
  return Number(row?.bytes) / Number(row?.count)
}

export const history = scenario<Sizes>({
  name: 'history',
  measures: 'the lifecycle with a long history, beside the same with none',
  sizes: {
    full: { ...LIFECYCLE.full, settled: 2_000_000 },
    quick: { ...LIFECYCLE.quick, warmSeconds: 1, settled: 20_000 },
    smoke: { ...LIFECYCLE.smoke, settled: 500 },
  },
  subjects: [
    {
      name: 'with history',
      async measure(stand, sizes) {
        const database = await stand.once(`history ${sizes.settled}`, () => createPast(stand, sizes))
        const before = await settledIn(database)
        await using ours = await startOurs(stand, sizes.devices, { kept: database })
        const { figures, begun } = await measureLifecycle(ours, sizes)
        await checkLedger(database, before + begun, 'completed')
        return { ...figures, disk: await diskPerCommand(database) }
      },
    },
    { name: 'empty', measure: measureNewLifecycle },
  ],
  bars: [{ figure: 'rate', against: { subject: 'empty', by: 'ratio' }, is: 'at least', bar: 0.9, goal: 1 }],
})
