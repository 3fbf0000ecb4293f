import { expect, test } from 'vitest'
import { fillHistory } from '../retention/support.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { connectDevice, ROOT, startDevice } from '../support/device.ts'
import { startServer } from '../support/server.ts'
import { until } from '../support/until.ts'

const HISTORY = 3000
const COMMANDS = 40
/** Eight statements that look at one command, its execution, its client and its key. */
const ROWS_PER_COMMAND = 40
const WAITING = 300

test('what a command costs does not depend on when PostgreSQL last looked at the tables', async () => {
  const database = await createTestDatabase()
  const sql = database.query
  const server = await startServer({ MAX_PENDING_PER_CLIENT: COMMANDS }, { database })
  const device = await startDevice(server, 'd1')
  const work = async (): Promise<void> => {
    const { status, body } = await server.api.post('/commands', { clientId: 'd1', action: 'print' })
    expect(status).toBe(201)
    const { messageId, payload } = await device.nextCommand()
    device.ack(messageId)
    await device.report(payload.id as string, { status: 'running', attempt: 1 })
    await device.report(payload.id as string, { status: 'completed', attempt: 1 })
    expect(payload.id).toBe(body.id)
  }
  // Every statement is planned for good on tables of which PostgreSQL knows that they are tiny.
  await work()
  for (const table of ['clients', 'commands', 'executions', 'events']) await sql(`analyze ${table}`)
  for (let round = 0; round < 12; round++) await work()
  await fillHistory(sql, { count: HISTORY, days: 1, clientId: 'd1' })
  await until(
    async () =>
      ((
        await sql<{ n: number }>(`select n_tup_ins::integer as n from pg_stat_user_tables where relname = 'executions'`)
      )[0]?.n ?? 0) > HISTORY,
    'PostgreSQL has counted the history',
  )
  const before = await rowsRead(database)
  for (let round = 0; round < COMMANDS; round++) await work()
  device.drop()
  await server.stop()
  await counted(database)
  const each = ((await rowsRead(database)) - before) / COMMANDS
  await database.drop()
  expect(each).toBeLessThan(ROWS_PER_COMMAND)
})

test('what waits for others is not read, though PostgreSQL believes since a quiet hour that nothing waits', async () => {
  const database = await createTestDatabase()
  const before = await startServer({}, { database })
  const keys = new Map<string, string>()
  for (let index = 0; index <= WAITING; index++) {
    const { body } = await before.api.post('/clients', { id: `d${index}` })
    keys.set(`d${index}`, body.clientKey)
  }
  await fillHistory(database.query, { count: HISTORY, days: 1, clientId: 'd1' })
  await database.query('vacuum analyze executions')
  expect((await before.api.post('/commands', { broadcast: true, action: 'print' })).status).toBe(201)
  await before.stop()
  await counted(database)
  await database.query('select pg_stat_reset()')

  const server = await startServer({ SWEEP_INTERVAL_SECONDS: 60 }, { database })
  const device = await connectDevice(server, { clientId: 'd1', password: keys.get('d1') as string })
  await device.subscribe(`${ROOT}/clients/d1/commands`)
  await device.nextCommand()
  device.drop()
  await server.stop()
  await counted(database)
  const read = await rowsRead(database, ['executions'])
  await database.drop()
  // Once, when a server starts, all that waits is looked through for what deleted clients left behind.
  expect(read).toBeLessThan(3 * WAITING)
})

async function rowsRead(
  { query }: TestDatabase,
  tables = ['clients', 'commands', 'executions', 'idempotency_keys'],
): Promise<number> {
  const [row] = await query<{ rows: number }>(
    `select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::float8 as rows from pg_stat_user_tables where relname = any($1)`,
    [tables],
  )
  return row?.rows as number
}

/** Connections that end hand in what they counted. */
async function counted({ query }: TestDatabase): Promise<void> {
  await until(
    async () =>
      (
        await query(
          `select 1 from pg_stat_activity where application_name = 'signalbox' and datname = current_database()`,
        )
      ).length === 0,
    'the connections are closed',
  )
}
