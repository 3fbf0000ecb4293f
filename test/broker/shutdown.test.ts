import { once } from 'node:events'
import { createConnection } from 'node:net'
import * as mqtt from 'mqtt-packet'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { type Network, startNetwork } from '../support/database-faults.ts'
import { startDevice } from '../support/device.ts'
import { startServer } from '../support/server.ts'
import { until } from '../support/until.ts'

let database: TestDatabase
let network: Network

beforeEach(async () => {
  database = await createTestDatabase()
  network = await startNetwork(database)
})
afterEach(async () => {
  await network.stop()
  await database.drop()
})

const start = (timeoutSeconds = 1) =>
  startServer(
    { DATABASE_TIMEOUT_SECONDS: timeoutSeconds, CREDENTIAL_CACHE_SECONDS: 0.01 },
    { database: { ...database, url: network.url } },
  )

test('a server stops although its database is gone and clients are connected', async () => {
  const server = await start()
  const device = await startDevice(server, 'd1')
  network.cut()
  await server.stop()
  await device.whenClosed()
}, 20_000)

test('a server stops although a login is under way', async () => {
  const server = await start(3)
  const { body } = await server.api.post('/clients', { id: 'd1' })
  network.freeze()
  const socket = createConnection({ port: server.mqttPort, host: '127.0.0.1' })
  await once(socket, 'connect')
  const connect = {
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clientId: 'd1',
    clean: true,
    keepalive: 60,
  } as const
  socket.write(mqtt.generate({ ...connect, username: 'd1', password: Buffer.from(body.clientKey) }))
  // Once the server has answered this, it has read the CONNECT.
  await server.api.get('/health/live')
  const closed = once(socket, 'close')
  await server.stop()
  await closed
}, 20_000)

test('a database that refuses to write is down, not broken: reports wait for it, the API says 503', async () => {
  const server = await start()
  const device = await startDevice(server, 'd1')
  const { body } = await server.api.post('/commands', { clientId: 'd1', action: 'print' })
  const { messageId } = await device.nextCommand()
  device.ack(messageId)
  await until(async () => (await server.api.get(`/commands/${body.id}`)).body.status === 'delivered', 'delivered')
  const name = new URL(database.url).pathname.slice(1)
  await database.query(`alter database ${name} set default_transaction_read_only = on`)
  network.cut()
  network.mend()
  const reported = device.report(body.id, { status: 'completed', attempt: 1 })
  const event = device.publish('signalbox/v1/clients/d1/events/scan', { id: 'e1' })
  await until(
    async () => (await server.api.post('/commands', { clientId: 'd1', action: 'print' })).status === 503,
    '503',
  )
  expect((await server.api.get(`/commands/${body.id}`)).body.status).toBe('delivered')
  await database.query(`alter database ${name} set default_transaction_read_only = off`)
  network.cut()
  network.mend()
  await Promise.all([reported, event])
  expect((await server.api.get(`/commands/${body.id}`)).body.status).toBe('completed')
  device.drop()
  await server.stop()
}, 30_000)
