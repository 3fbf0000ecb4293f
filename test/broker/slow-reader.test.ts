import { generate } from 'mqtt-packet'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ROOT } from '../support/device.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import {
  CONNECT,
  command,
  commandsOf,
  enter,
  logged,
  openSocket,
  register,
  technician,
  watchBroker,
} from './support/scene.ts'

const SLOW_READER_SECONDS = 3
const broker = watchBroker()
let server: TestServer

beforeAll(async () => {
  server = await startServer({ MQTT_SLOW_READER_SECONDS: SLOW_READER_SECONDS })
})
afterAll(() => server.stop())

test('a subscriber that stops reading delays nobody and is disconnected', async () => {
  const frozen = await openSocket(server)
  const login = { clientId: 'frozen', username: 'admin', password: Buffer.from(ADMIN_TOKEN) }
  frozen.socket.write(generate({ ...CONNECT, ...login }))
  frozen.socket.write(
    generate({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: `${ROOT}/clients/#`, qos: 0 }] }),
  )
  await until(() => frozen.packets.some(({ cmd }) => cmd === 'suback'), 'SUBACK')
  frozen.socket.pause()

  const reader = await technician(server, 'reader', `${ROOT}/clients/worker/commands`)
  const device = await enter(server, 'worker', await register(server, 'worker'))
  const payload = 'x'.repeat(200_000)
  const { clients } = broker()
  let longest = 0
  let sent = 0
  // Until the broker has given it up: the buffers of the socket fill first.
  while (clients.frozen) {
    const started = performance.now()
    const id = await command(server, 'worker', { payload })
    const { messageId } = await device.nextCommand()
    device.ack(messageId)
    await device.report(id, { status: 'completed', attempt: 1 })
    await until(() => reader.received().length > sent, 'the other technician sees it')
    longest = Math.max(longest, performance.now() - started)
    sent++
    if (sent > 2000) throw new Error('it is never disconnected')
  }
  expect(longest).toBeLessThan(SLOW_READER_SECONDS * 500)
  await until(() => logged(server, 'connection closed', { client: 'frozen' }).length > 0, 'log line')
  expect(logged(server, 'connection closed', { client: 'frozen' })).toHaveLength(1)
  await device.ping()
  await reader.ping()
  frozen.socket.destroy()
  await Promise.all([device.end(), reader.end()])
})

test('a device that stops reading keeps a broadcast from nobody, though nobody looks on', async () => {
  const password = Buffer.from(await register(server, 'stuck', { maxInFlight: 100 }))
  const stuck = await openSocket(server)
  stuck.socket.write(generate({ ...CONNECT, clientId: 'stuck', username: 'stuck', password }))
  const topics = [commandsOf('stuck'), `${ROOT}/broadcast/commands`]
  stuck.socket.write(
    generate({ cmd: 'subscribe', messageId: 1, subscriptions: topics.map((topic) => ({ topic, qos: 1 })) }),
  )
  await until(() => stuck.packets.some(({ cmd }) => cmd === 'suback'), 'SUBACK')
  const device = await enter(server, 'other', await register(server, 'other'))
  expect(await device.subscribe(`${ROOT}/broadcast/commands`)).toEqual([1])

  stuck.socket.pause()
  const { clients } = broker()
  // Until the buffers of its socket are full.
  while (!clients.stuck?.conn.writableNeedDrain) await command(server, 'stuck', { payload: 'x'.repeat(250_000) })
  const started = performance.now()
  const { status } = await server.api.post('/commands', { broadcast: true, action: 'do' })
  expect(status).toBe(201)
  await until(() => device.received(`${ROOT}/broadcast/commands`).length > 0, 'the other device has it')
  expect(performance.now() - started).toBeLessThan(SLOW_READER_SECONDS * 500)
  stuck.socket.destroy()
  await device.end()
})
