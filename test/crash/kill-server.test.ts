import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { connectDevice, type Device, ROOT } from '../support/device.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'

let database: TestDatabase
let servers: ServerProcess[] = []

beforeEach(async () => {
  database = await createTestDatabase()
})
afterEach(async () => {
  await Promise.all(servers.map((server) => server.kill()))
  servers = []
  await database.drop()
})

async function start(options: Parameters<typeof startServerProcess>[1] = {}): Promise<ServerProcess> {
  const server = await startServerProcess(database, options)
  servers.push(server)
  return server
}

async function register(server: ServerProcess, id: string): Promise<string> {
  return (await server.api.post('/clients', { id })).body.clientKey
}

/** Connects, tells its journal if it has one, then subscribes. */
async function connect(server: ServerProcess, clientId: string, password: string, journalId?: string): Promise<Device> {
  const device = await connectDevice(server, { clientId, password })
  if (journalId)
    await device.publish(`${ROOT}/clients/${clientId}/status`, { state: 'online', journalId }, { retain: true })
  await device.subscribe(`${ROOT}/clients/${clientId}/commands`)
  return device
}

const statusOf = async (id: string): Promise<string | undefined> =>
  (await database.query<{ status: string }>('select status from executions where command_id = $1', [id]))[0]?.status

const eventsOf = async (id: string): Promise<string[]> =>
  (await database.query<{ type: string }>('select type from events where command_id = $1 order by id', [id])).map(
    (row) => row.type,
  )

describe('the server is killed with -9', () => {
  test('after the 201 and before the device connects: the command is there for it', async () => {
    const first = await start()
    const key = await register(first, 'd1')
    const { body, status } = await first.api.post('/commands', { clientId: 'd1', action: 'print', payload: { n: 1 } })
    expect(status).toBe(201)
    await first.kill()
    const second = await start()
    const device = await connect(second, 'd1', key)
    const { messageId, payload } = await device.nextCommand()
    expect(payload).toMatchObject({ id: body.id, attempt: 1, payload: { n: 1 } })
    device.ack(messageId)
    await device.report(body.id, { status: 'completed', attempt: 1 })
    expect((await second.api.get(`/commands/${body.id}`)).body.status).toBe('completed')
    device.drop()
  })

  const handedOver: [
    string,
    'at_least_once' | 'at_most_once',
    string | undefined,
    string | undefined,
    'redelivered' | 'outcome_unknown',
  ][] = [
    ['at_most_once without a journal: nobody can tell', 'at_most_once', undefined, undefined, 'outcome_unknown'],
    ['at_most_once, the same journal returns: sent again', 'at_most_once', 'j1', 'j1', 'redelivered'],
    ['at_most_once, another journal returns: nobody can tell', 'at_most_once', 'j1', 'j2', 'outcome_unknown'],
    ['at_least_once: sent again', 'at_least_once', undefined, undefined, 'redelivered'],
  ]
  test.each(handedOver)(
    'after the forward and before the PUBACK, %s',
    async (_name, delivery, before, afterwards, expected) => {
      const first = await start()
      await first.api.send('PUT', '/actions/print', { delivery })
      const key = await register(first, 'd1')
      const device = await connect(first, 'd1', key, before)
      const { body } = await first.api.post('/commands', { clientId: 'd1', action: 'print' })
      await device.nextCommand()
      await first.kill()
      await device.whenClosed()
      const second = await start()
      const again = await connect(second, 'd1', key, afterwards)
      if (expected === 'redelivered') {
        const { payload, messageId } = await again.nextCommand()
        expect(payload).toMatchObject({ id: body.id, attempt: 1 })
        again.ack(messageId)
        await until(async () => (await statusOf(body.id)) === 'delivered', 'delivered')
      } else {
        await until(async () => (await statusOf(body.id)) === 'outcome_unknown', 'outcome_unknown')
        await again.ping()
        expect(
          again.received(`${ROOT}/clients/d1/commands`).filter((message) => message.payload.type === 'command'),
        ).toEqual([])
      }
      again.drop()
    },
  )

  test("after a report's PUBACK: the report is there", async () => {
    const first = await start()
    const key = await register(first, 'd1')
    const device = await connect(first, 'd1', key)
    const { body } = await first.api.post('/commands', { clientId: 'd1', action: 'print' })
    const { messageId } = await device.nextCommand()
    device.ack(messageId)
    await device.report(body.id, { status: 'running', attempt: 1 })
    await device.report(body.id, { status: 'completed', attempt: 1, result: { pages: 1 } })
    await first.kill()
    expect(await statusOf(body.id)).toBe('completed')
    const second = await start()
    expect((await second.api.get(`/commands/${body.id}`)).body).toMatchObject({
      status: 'completed',
      result: { pages: 1 },
    })
    await device.whenClosed()
  })

  test('between the commit of a create and its answer: repeating it with the same key tells', async () => {
    const first = await start({ killAt: 'create-committed' })
    await register(first, 'd1')
    const command = { clientId: 'd1', action: 'print' }
    await expect(first.api.post('/commands', command, { 'idempotency-key': 'k1' })).rejects.toThrow()
    await first.ended()
    const second = await start()
    const repeated = await second.api.post('/commands', command, { 'idempotency-key': 'k1' })
    expect(repeated.status).toBe(200)
    expect(repeated.headers.get('idempotent-replayed')).toBe('true')
    expect(await database.query('select id from commands')).toHaveLength(1)
  })

  test.each([
    ['a journal comes back for it', 'j1', 'redelivered'],
    ['nobody can tell without a journal', undefined, 'outcome_unknown'],
  ])('between the commit of a claim and the forward: %s', async (_name, journalId, expected) => {
    const first = await start({ killAt: 'claim-committed' })
    const key = await register(first, 'd1')
    const device = await connect(first, 'd1', key, journalId)
    const { body } = await first.api.post('/commands', { clientId: 'd1', action: 'print' })
    await first.ended()
    await device.whenClosed()
    expect(device.received(`${ROOT}/clients/d1/commands`)).toEqual([])
    const second = await start()
    const again = await connect(second, 'd1', key, journalId)
    if (expected === 'redelivered')
      expect((await again.nextCommand()).payload).toMatchObject({ id: body.id, attempt: 1 })
    else await until(async () => (await statusOf(body.id)) === 'outcome_unknown', 'outcome_unknown')
    again.drop()
  })

  test.each(['report-received', 'report-committed'] as const)(
    'at %s, before the PUBACK: the device repeats, and it counts once',
    async (killAt) => {
      const first = await start({ killAt })
      const key = await register(first, 'd1')
      const device = await connect(first, 'd1', key)
      const { body } = await first.api.post('/commands', { clientId: 'd1', action: 'print' })
      const { messageId } = await device.nextCommand()
      device.ack(messageId)
      await until(async () => (await statusOf(body.id)) === 'delivered', 'delivered')
      await expect(device.report(body.id, { status: 'completed', attempt: 1, result: 7 })).rejects.toThrow()
      await first.ended()
      expect(await statusOf(body.id)).toBe(killAt === 'report-committed' ? 'completed' : 'delivered')
      const second = await start()
      const again = await connect(second, 'd1', key)
      await again.report(body.id, { status: 'completed', attempt: 1, result: 7 })
      expect(await statusOf(body.id)).toBe('completed')
      expect((await eventsOf(body.id)).filter((type) => type === 'execution.completed')).toHaveLength(1)
      again.drop()
    },
  )
})
