import { generate } from 'mqtt-packet'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { connectDevice, type Device, ROOT } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'
import { CONNECT, enter, openSocket, own, register, technician, watchBroker } from './support/scene.ts'

const broker = watchBroker()
let server: TestServer
let watcher: Device

beforeAll(async () => {
  server = await startServer()
  watcher = await technician(server, 'watcher', `${ROOT}/clients/+/status`)
})
afterAll(() => server.stop())

const client = async (id: string, of = server) => (await of.api.get(`/clients/${id}`)).body
const untilPresence = (id: string, presence: string, of = server) =>
  until(async () => (await client(id, of)).presence === presence, `${id} ${presence}`)
const statesOf = (id: string) => watcher.received(own(id, 'status')).map(({ payload }) => payload.state)

/** What somebody who subscribes now is told. */
async function retained(id: string, of = server): Promise<Record<string, unknown> | undefined> {
  const newcomer = await technician(of, `newcomer-${id}`)
  await newcomer.subscribe(own(id, '#'))
  await until(() => newcomer.received().length >= 2, 'the retained config and status')
  const [status] = newcomer.received(own(id, 'status'))
  expect(status?.retain).toBe(true)
  await newcomer.end()
  return status?.payload
}

test('a connection and its end show in the API and on the retained status topic', async () => {
  const password = await register(server, 'c1')
  const registered = await client('c1')
  expect(registered).toMatchObject({ presence: 'offline', reported: null })
  expect(await retained('c1')).toEqual({ state: 'offline', since: registered.presenceSince })

  const device = await enter(server, 'c1', password)
  expect(await client('c1')).toMatchObject({ presence: 'online' })
  expect(await retained('c1')).toEqual({ state: 'online' })

  const status = { state: 'online', version: '1.0.0', journalId: 'j1', printers: [{ id: 'p' }] }
  await device.publish(own('c1', 'status'), status)
  expect(await client('c1')).toMatchObject({ presence: 'online', reported: status })
  expect(await retained('c1')).toEqual(status)

  device.drop()
  await untilPresence('c1', 'offline')
  const { presenceSince, reported } = await client('c1')
  expect(reported).toEqual(status)
  await until(() => statesOf('c1').length >= 4, 'offline on the topic')
  expect(await retained('c1')).toEqual({ state: 'offline', since: presenceSince })
  expect(statesOf('c1')).toEqual(['offline', 'online', 'online', 'offline'])
})

test("the server's online comes before anything the session publishes, also when both are sent in one packet", async () => {
  const password = Buffer.from(await register(server, 'eager'))
  for (let round = 1; round <= 10; round++) {
    const raw = await openSocket(server)
    const status = (state: string, messageId: number) =>
      generate({
        cmd: 'publish',
        topic: own('eager', 'status'),
        payload: JSON.stringify({ state }),
        qos: 1,
        messageId,
        retain: true,
        dup: false,
      })
    raw.socket.write(
      Buffer.concat([
        generate({ ...CONNECT, clientId: 'eager', username: 'eager', password }),
        status(`booting-${round}`, 1),
        status(`ready-${round}`, 2),
      ]),
    )
    await until(() => raw.packets.length >= 3, 'CONNACK and two PUBACKs')
    raw.socket.destroy()
    await until(() => statesOf('eager').length === 1 + round * 4, 'offline')
    expect(statesOf('eager').slice(-4)).toEqual(['online', `booting-${round}`, `ready-${round}`, 'offline'])
  }
})

test('a takeover shows as offline and online, in this order, and the newest stays online', async () => {
  const password = await register(server, 'taken')
  const connections: Device[] = []
  for (let round = 0; round < 5; round++) connections.push(await enter(server, 'taken', password))
  await until(() => statesOf('taken').length >= 10, 'all sessions')
  expect(statesOf('taken')).toEqual(['offline', ...Array(4).fill(['online', 'offline']).flat(), 'online'])
  expect((await client('taken')).presence).toBe('online')
  expect(await retained('taken')).toEqual({ state: 'online' })
  expect(connections.map(({ closed }) => closed)).toEqual([true, true, true, true, false])
})

test('the retained config is delivered on subscribe and at every change', async () => {
  const device = await enter(server, 'configured', await register(server, 'configured', { zones: ['A', 'B'] }))
  await device.subscribe(own('configured', 'config'))
  const configs = () => device.received(own('configured', 'config'))
  await until(() => configs().length === 1, 'the config')
  expect(configs()[0]).toMatchObject({ retain: true, payload: { zones: ['A', 'B'], maxInFlight: 8 } })
  await server.api.send('PATCH', '/clients/configured', { zones: ['B', 'C'], maxInFlight: 2 })
  await until(() => configs().length === 2, 'the change')
  expect(configs()[1]).toMatchObject({ retain: false, payload: { zones: ['B', 'C'], maxInFlight: 2 } })
  await device.end()
})

test('a client that loses a zone is unsubscribed from it at once, from nothing else, and may not come back', async () => {
  const password = await register(server, 'leaver', { zones: ['A', 'B'] })
  for (const clean of [true, false]) {
    await server.api.send('PATCH', '/clients/leaver', { zones: ['A', 'B'] })
    const device = await enter(server, 'leaver', password, { clean })
    const zone = (name: string) => `${ROOT}/zones/${name}/commands`
    expect(await device.subscribe([zone('A'), zone('B'), `${ROOT}/broadcast/commands`])).toEqual([1, 1, 1])
    const subscriptions = () => Object.keys(broker().clients.leaver?.subscriptions ?? {}).sort()
    expect(subscriptions()).toHaveLength(4)
    await server.api.send('PATCH', '/clients/leaver', { zones: ['B'] })
    const left = [`${ROOT}/broadcast/commands`, own('leaver', 'commands'), zone('B')]
    expect(subscriptions()).toEqual(left)
    expect(await device.subscribe(zone('A'))).toEqual([128])
    await device.end()
    if (clean) continue
    const back = await connectDevice(server, { clientId: 'leaver', password, clean: false })
    expect(back.sessionPresent).toBe(true)
    expect(subscriptions()).toEqual(left)
    await back.end()
  }
})

test('a client that joins a zone may subscribe to it at once', async () => {
  const device = await enter(server, 'joiner', await register(server, 'joiner'))
  expect(await device.subscribe(`${ROOT}/zones/new/commands`)).toEqual([128])
  await server.api.send('PATCH', '/clients/joiner', { zones: ['new'] })
  expect(await device.subscribe(`${ROOT}/zones/new/commands`)).toEqual([1])
  await device.end()
})

test('a deleted client is gone from the retained topics, though its session ends after the deletion', async () => {
  for (let round = 0; round < 5; round++) {
    const id = `deleted-${round}`
    const device = await enter(server, id, await register(server, id))
    expect((await server.api.send('DELETE', `/clients/${id}`)).status).toBe(204)
    await device.whenClosed()
    await until(async () => {
      const ended = await server.sql("select 1 from events where type = 'client.offline' and client_id = $1", [id])
      return ended.length > 0
    }, 'the end of the session')
    // A whole session later, what the deletion published has been published.
    const later = `later-${round}`
    await (await enter(server, later, await register(server, later))).end()
    await until(() => statesOf(later).length === 3, 'the later session')
    const newcomer = await technician(server, 'after-deletion', `${ROOT}/clients/#`)
    await until(() => newcomer.received(own(later, 'status')).length > 0, 'what is retained')
    expect(newcomer.received().filter(({ topic }) => topic.startsWith(own(id, '')))).toEqual([])
    await newcomer.end()
  }
})

test('a server that starts on a database that a killed one left behind shows everybody offline, without waiting for its lease', {
  timeout: 60_000,
}, async () => {
  const database = await createTestDatabase()
  const killed = await startServerProcess(database)
  const { body } = await killed.api.post('/clients', { id: 'survivor', zones: ['Z'] })
  await connectDevice(killed, { clientId: 'survivor', password: body.clientKey })
  await killed.kill()
  const second = await startServer({}, { database })
  try {
    expect(await client('survivor', second)).toMatchObject({ presence: 'offline' })
    const newcomer = await technician(second, 'newcomer')
    await newcomer.subscribe(own('survivor', '#'))
    await until(() => newcomer.received().length === 2, 'what is retained')
    expect(newcomer.received(own('survivor', 'status'))[0]?.payload).toMatchObject({ state: 'offline' })
    expect(newcomer.received(own('survivor', 'config'))[0]?.payload).toEqual({ zones: ['Z'], maxInFlight: 8 })
    await newcomer.end()
    const there = await enter(second, 'survivor', body.clientKey)
    expect((await client('survivor', second)).presence).toBe('online')
    await there.end()
  } finally {
    await second.stop()
    await database.drop()
  }
})

test('a session that finds a newer one of its client is closed, and its end changes no presence', async () => {
  const device = await enter(server, 'superseded', await register(server, 'superseded'))
  // As if the client had come to somebody else, who shares the database and lives.
  await server.sql(
    `insert into nodes (id, name, process_id, expires_at) values ('elsewhere', 'elsewhere', 1, clock_timestamp() + interval '1 hour')`,
  )
  const [newer] = await server.sql<{ session_epoch: number }>(
    `update clients set session_epoch = nextval('session_epochs'), session_node = 'elsewhere' where id = 'superseded'
     returning session_epoch`,
  )
  const { body } = await server.api.post('/commands', { clientId: 'superseded', action: 'do' })
  await device.whenClosed()
  await until(
    () => server.logs.some((line) => line.clientId === 'superseded' && line.msg === 'session closed'),
    'the end of the older session',
  )
  expect(await client('superseded')).toMatchObject({ presence: 'online' })
  expect((await server.sql("select session_epoch from clients where id = 'superseded'"))[0]).toEqual(newer)
  expect((await server.api.get(`/commands/${body.id}`)).body.status).toBe('pending')
  expect(device.received(own('superseded', 'commands'))).toEqual([])
  expect(statesOf('superseded')).toEqual(['offline', 'online'])
  await server.sql(`delete from nodes where id = 'elsewhere'`)
})
