import { afterAll, beforeAll, expect, test } from 'vitest'
import { connectDevice, type Device } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import {
  command,
  commandsOf,
  enter,
  explain,
  own,
  register,
  statusOf,
  untilExplained,
  untilStatus,
  watchBroker,
} from './support/scene.ts'

const broker = watchBroker()
let server: TestServer

beforeAll(async () => {
  server = await startServer()
  await server.api.send('PUT', '/actions/repeatable', { delivery: 'at_least_once' })
})
afterAll(() => server.stop())

const untilOffline = (clientId: string) =>
  until(async () => (await server.api.get(`/clients/${clientId}`)).body.presence === 'offline', `${clientId} offline`)

const idsOf = (device: Device) =>
  device.received(commandsOf(device.clientId)).map(({ payload }) => payload.id as string)

test('work waits until the own commands topic is granted at QoS 1, and explain says why', async () => {
  const password = await register(server, 'subscribes-late')
  const device = await connectDevice(server, { clientId: 'subscribes-late', password })
  const id = await command(server, 'subscribes-late')
  expect(await explain(server, id)).toBe('not_subscribed')
  // Another topic of its own changes nothing.
  expect(await device.subscribe(own('subscribes-late', 'config'))).toEqual([1])
  expect(await explain(server, id)).toBe('not_subscribed')
  expect(await device.subscribe(commandsOf('subscribes-late'), 0)).toEqual([128])
  expect(await explain(server, id)).toBe('refused_at_qos_0')
  expect(await statusOf(server, id)).toBe('pending')
  expect(idsOf(device)).toEqual([])
  expect(await device.subscribe(commandsOf('subscribes-late'), 1)).toEqual([1])
  const { messageId } = await device.nextCommand()
  await untilExplained(server, id, 'waiting_for_puback')
  device.ack(messageId)
  await untilExplained(server, id, 'waiting_for_start')
  await device.report(id, { status: 'running', attempt: 1 })
  expect(await explain(server, id)).toBe('waiting_for_outcome')
  await device.report(id, { status: 'completed', attempt: 1 })
  expect(await explain(server, id)).toBeUndefined()
  await device.end()
})

test('after an UNSUBSCRIBE nothing is sent until the next SUBSCRIBE', async () => {
  const device = await enter(server, 'unsubscribes', await register(server, 'unsubscribes'))
  await device.unsubscribe(commandsOf('unsubscribes'))
  const id = await command(server, 'unsubscribes')
  await untilExplained(server, id, 'not_subscribed')
  expect(idsOf(device)).toEqual([])
  await device.subscribe(commandsOf('unsubscribes'))
  expect((await device.nextCommand()).payload.id).toBe(id)
  await device.end()
})

test('each PUBACK marks exactly the command it belongs to, in any order and among invented ids', async () => {
  const device = await enter(server, 'pairing', await register(server, 'pairing', { maxInFlight: 20 }))
  const sent: { messageId: number; id: string }[] = []
  for (let count = 0; count < 12; count++) await command(server, 'pairing', { payload: count })
  for (let count = 0; count < 12; count++) {
    const { messageId, payload } = await device.nextCommand()
    sent.push({ messageId, id: payload.id as string })
  }
  expect(new Set(sent.map(({ messageId }) => messageId)).size).toBe(12)
  const delivered = async () => {
    const rows = await server.sql<{ id: string }>(
      "select command_id as id from executions where client_id = 'pairing' and status = 'delivered'",
    )
    return rows.map(({ id }) => id).sort()
  }
  const unused = Array.from({ length: 65_535 }, (_, index) => index + 1).filter(
    (id) => !sent.some(({ messageId }) => messageId === id),
  )
  const expected: string[] = []
  for (const { messageId, id } of sent.toReversed()) {
    for (const bogus of unused.splice(0, 2)) device.ack(bogus)
    device.ack(messageId)
    // The number is free again: a repeated PUBACK means nothing.
    device.ack(messageId)
    expected.push(id)
    await until(async () => (await delivered()).length >= expected.length, `PUBACK ${messageId}`)
    expect(await delivered()).toEqual(expected.toSorted())
  }
  await device.end()
})

test('a retained config and a command in the same moment both arrive: 20 of 20', async () => {
  const device = await enter(server, 'config', await register(server, 'config', { maxInFlight: 100 }))
  await device.subscribe(own('config', 'config'))
  const configs = () => device.received(own('config', 'config')).map(({ payload }) => payload.maxInFlight)
  await until(() => configs().length === 1, 'the retained config')
  for (let round = 1; round <= 20; round++) {
    const [changed, id] = await Promise.all([
      server.api.send('PATCH', '/clients/config', { maxInFlight: 100 + round }),
      command(server, 'config'),
    ])
    expect(changed.status).toBe(200)
    expect((await device.nextCommand()).payload.id).toBe(id)
    await until(() => configs().length === round + 1, `config ${round}`)
  }
  expect(configs()).toEqual(Array.from({ length: 21 }, (_, index) => 100 + index))
  await device.end()
})

test('messages that overtake each other inside the broker both arrive: 20 of 20', async () => {
  const device = await enter(server, 'overtaken', await register(server, 'overtaken'))
  await device.subscribe([own('overtaken', 'config'), own('overtaken', 'replies')])
  await until(() => device.received(own('overtaken', 'config')).length === 1, 'the retained config')
  for (let round = 1; round <= 20; round++) {
    // In one tick: keeping the first takes a step, so that the second is written before it.
    for (const [topic, retain] of [
      ['config', true],
      ['replies', false],
    ] as const) {
      const payload = Buffer.from(JSON.stringify({ round }))
      broker().publish(
        { cmd: 'publish', topic: own('overtaken', topic), payload, qos: 1, retain, dup: false },
        () => undefined,
      )
    }
    const arrived = (topic: string) =>
      device.received(own('overtaken', topic)).some(({ payload }) => payload.round === round)
    await until(() => arrived('replies'), `reply ${round}`)
    await until(() => arrived('config'), `config ${round}`)
  }
  const order = device.received().filter(({ payload }) => payload.round === 20)
  expect(order.map(({ topic }) => topic)).toEqual([own('overtaken', 'replies'), own('overtaken', 'config')])
  await device.end()
})

test('of 400 commands to 20 devices at once none is lost and none comes twice', async () => {
  const names = Array.from({ length: 20 }, (_, index) => `many-${index}`)
  const devices = await Promise.all(
    names.map(async (name) => enter(server, name, await register(server, name, { maxInFlight: 4 }))),
  )
  const serving = devices.map(async (device) => {
    for (let count = 0; count < 20; count++) {
      const { messageId, payload } = await device.nextCommand()
      device.ack(messageId)
      await device.report(payload.id as string, { status: 'completed', attempt: 1, result: payload.payload })
    }
  })
  const created = await Promise.all(
    names.flatMap((name) =>
      Array.from({ length: 20 }, async (_, n) => ({
        name,
        id: await command(server, name, { payload: `${name} ${n}` }),
      })),
    ),
  )
  await Promise.all(serving)
  for (const device of devices) {
    const expected = created.filter(({ name }) => name === device.clientId).map(({ id }) => id)
    expect(idsOf(device).sort()).toEqual(expected.sort())
  }
  const rows = await server.sql<{ client_id: string; result: string; status: string }>(
    "select client_id, result, status from executions where client_id like 'many-%'",
  )
  expect(rows).toHaveLength(400)
  for (const row of rows) {
    expect(row.status).toBe('completed')
    expect(row.result.startsWith(`${row.client_id} `)).toBe(true)
  }
  await Promise.all(devices.map((device) => device.end()))
})

test('a persistent session keeps its subscription and gets what the ledger says, no queue of the broker', async () => {
  const key = await register(server, 'persistent')
  const first = await enter(server, 'persistent', key, { clean: false })
  const lost = await command(server, 'persistent')
  const repeated = await command(server, 'persistent', { action: 'repeatable' })
  for (const _ of [1, 2]) await first.nextCommand()
  first.drop()
  await untilStatus(server, lost, 'outcome_unknown')
  await untilOffline('persistent')
  const cancelled = await command(server, 'persistent')
  const waiting = await command(server, 'persistent')
  await server.api.post(`/commands/${cancelled}/cancel`, {})

  const second = await connectDevice(server, { clientId: 'persistent', password: key, clean: false })
  expect(second).toMatchObject({ returnCode: 0, sessionPresent: true })
  for (const id of [repeated, waiting]) {
    const { messageId, payload } = await second.nextCommand()
    expect(payload).toMatchObject({ type: 'command', id, attempt: 1 })
    second.ack(messageId)
    await untilStatus(server, id, 'delivered')
  }
  const marker = await command(server, 'persistent')
  await second.nextCommand()
  expect(idsOf(second)).toEqual([repeated, waiting, marker])
  await second.end()

  // Clean session ends it: no subscription comes back.
  const clean = await connectDevice(server, { clientId: 'persistent', password: key, clean: true })
  expect(clean.sessionPresent).toBe(false)
  await clean.end()
  const last = await connectDevice(server, { clientId: 'persistent', password: key, clean: false })
  expect(last.sessionPresent).toBe(false)
  await last.end()
})

test('a command says on the clock of the database when it was sent, and how long it may still be started from then', async () => {
  const key = await register(server, 'counts')
  const id = await command(server, 'counts', { ttlSeconds: 600 })
  const { createdAt, expiresAt } = (await server.api.get(`/commands/${id}`)).body
  const device = await enter(server, 'counts', key)
  const { payload } = await device.nextCommand()
  const [row] = await server.sql<{ queued_at: Date }>('select queued_at from executions where command_id = $1', [id])
  const sentAt = Date.parse(payload.sentAt as string)
  expect(sentAt).toBe(row?.queued_at.getTime())
  expect(sentAt).toBeGreaterThan(Date.parse(createdAt))
  expect(payload.expiresInSeconds).toBe((Date.parse(expiresAt) - sentAt) / 1000)
  await device.end()
})
