import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { enter, register } from '../broker/support/scene.ts'
import { parseExposition } from '../support/exposition.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer({ DATABASE_TIMEOUT_SECONDS: 0.5, SWEEP_INTERVAL_SECONDS: 0.1 })
})
afterAll(() => server.stop())

const create = (clientId: string) => server.api.post('/commands', { clientId, action: 'do' })

// The statement of a create goes on in PostgreSQL when nobody waits for it any more, and may claim the command for its client's session.
test('a create that is committed long after its caller was told that nothing is confirmed still reaches its client, once', async () => {
  const password = await register(server, 'late')
  const device = await enter(server, 'late', password)
  // Twice, so that the session is known to have all that waits.
  for (let index = 0; index < 2; index++) {
    const { body } = await create('late')
    const { messageId, payload } = await device.nextCommand()
    device.ack(messageId)
    await device.report(body.id, { status: 'completed', attempt: payload.attempt })
  }
  const somebody = new pg.Client({ connectionString: server.database_.url })
  await somebody.connect()
  await somebody.query('begin')
  await somebody.query(`select 1 from clients where id = 'late' for update`)
  expect((await create('late')).status).toBe(503)
  // The session has looked for what may be left of it, and found nothing.
  const rounds = async (): Promise<number> => {
    const metrics = parseExposition(await (await fetch(`${server.http}/metrics`)).text())
    const samples = metrics.get('signalbox_batch_items')?.samples ?? []
    return samples.find(({ name, labels }) => name.endsWith('_count') && labels.batcher === 'ledger')?.value ?? 0
  }
  const before = await rounds()
  await until(async () => (await rounds()) > before, 'the look')
  await somebody.query('commit')
  await somebody.end()
  const { messageId, payload } = await device.nextCommand()
  device.ack(messageId)
  await device.report(payload.id as string, { status: 'completed', attempt: payload.attempt })
  await until(
    async () => (await server.api.get(`/commands/${payload.id}`)).body.status === 'completed',
    'the command is completed',
  )
  const [stored] = await server.sql<{ n: number }>(`select count(*)::int as n from executions where client_id = 'late'`)
  expect(stored?.n).toBe(3)
  expect(device.received().filter(({ payload: got }) => got.id === payload.id)).toHaveLength(1)
})
