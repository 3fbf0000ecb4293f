import { expect, test } from 'vitest'
import { createStand } from '../../bench/stand.ts'
import { until } from '../support/until.ts'

test('a connection that is lost while nobody uses it does not end the run', async () => {
  await using stand = await createStand({ say: () => undefined })
  await using database = await stand.createDatabase()
  const ended = await database.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres' and backend_type = 'client backend'",
  )
  expect(ended).not.toEqual([])
  await until(async () => {
    // The one that is lost may be taken for a living one once.
    const another = await stand.createDatabase().catch(() => undefined)
    await another?.[Symbol.asyncDispose]()
    return another !== undefined
  }, 'another database')
})
