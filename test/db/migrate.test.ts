import pg from 'pg'
import { expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { startServer } from '../support/server.ts'
import { until } from '../support/until.ts'

const TIMEOUT_SECONDS = 0.5

test('a migration may take longer than any limit on statements', async () => {
  const database = await createTestDatabase({ empty: true })
  const name = new URL(database.url).pathname.slice(1)
  // What a large table does by its size: the migration's statement cannot end while this one is open.
  const other = new pg.Client({ connectionString: database.url })
  await other.connect()
  await other.query('begin')
  await other.query('create table clients ()')

  await database.query(`alter database ${name} set statement_timeout = ${TIMEOUT_SECONDS * 1000}`)
  const starting = startServer({ DATABASE_TIMEOUT_SECONDS: TIMEOUT_SECONDS }, { database })
  const waits = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
    and clock_timestamp() - query_start > make_interval(secs => ${TIMEOUT_SECONDS * 3})`
  const hasWaited = until(async () => (await database.query(waits)).length === 1, 'the migration has waited for long')
  await Promise.race([hasWaited, starting])
  // The server itself lives with its limit.
  await database.query(`alter database ${name} reset statement_timeout`)
  await other.query('rollback')
  await other.end()
  const server = await starting
  expect((await server.api.get('/clients')).status).toBe(200)
  await server.stop()
  await database.drop()
})
