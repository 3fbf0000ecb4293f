import { expect, test } from 'vitest'
import { fillHistory } from '../retention/support.ts'
import { createTestDatabase } from '../support/database.ts'
import { startDevice } from '../support/device.ts'
import { startServer } from '../support/server.ts'
import { until } from '../support/until.ts'

const HISTORY = 3000
const COMMANDS = 40
/** Eight statements that look at one command, its execution, its client and its key. */
const ROWS_PER_COMMAND = 40

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
  const rowsRead = async (): Promise<number> => {
    const [row] = await sql<{ rows: number }>(`
      select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::float8 as rows from pg_stat_user_tables
      where relname in ('clients', 'commands', 'executions', 'idempotency_keys')`)
    return row?.rows as number
  }
  await until(
    async () =>
      ((
        await sql<{ n: number }>(`select n_tup_ins::integer as n from pg_stat_user_tables where relname = 'executions'`)
      )[0]?.n ?? 0) > HISTORY,
    'PostgreSQL has counted the history',
  )
  const before = await rowsRead()
  for (let round = 0; round < COMMANDS; round++) await work()
  device.drop()
  // Connections that end hand in what they counted.
  await server.stop()
  await until(
    async () =>
      (
        await sql(
          `select 1 from pg_stat_activity where application_name = 'signalbox' and datname = current_database()`,
        )
      ).length === 0,
    'the connections are closed',
  )
  const each = ((await rowsRead()) - before) / COMMANDS
  await database.drop()
  expect(each).toBeLessThan(ROWS_PER_COMMAND)
})
