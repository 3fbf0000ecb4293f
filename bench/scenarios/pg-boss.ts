import type { RateLoad } from '../load/rate-load.ts'
import { startPart } from '../part.ts'
import type { PgBossOrders } from '../peers/pg-boss-load.ts'
import { cpuMicrosOfFamily } from '../processes.ts'
import { measureRate, type RateSizes } from '../rate.ts'
import type { Figures } from '../scenario.ts'
import type { Stand } from '../stand.ts'

/** pg-boss on the same PostgreSQL, in a database of its own. */
export async function measurePgBoss(
  stand: Stand,
  orders: Omit<PgBossOrders, 'url'>,
  sizes: RateSizes,
): Promise<Figures> {
  await using database = await stand.createDatabase()
  await using load = await startPart<RateLoad>(new URL('../peers/pg-boss-load.ts', import.meta.url), {
    ...orders,
    url: database.url,
  } satisfies PgBossOrders)
  const postgres = stand.postgres.pid() as number
  const { figures, begun } = await measureRate(load, { databaseCpu: () => cpuMicrosOfFamily(postgres) }, sizes)
  const state = orders.workers === 0 ? 'created' : 'completed'
  const [row] = await database.query<{ count: string }>('select count(*) from pgboss.job where state = $1', [state])
  if (Number(row?.count) !== begun) throw new Error(`pg-boss has ${row?.count} jobs ${state} instead of ${begun}`)
  return figures
}
