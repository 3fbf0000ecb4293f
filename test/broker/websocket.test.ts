import { once } from 'node:events'
import mqtt from 'mqtt'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { startServer, type TestServer } from '../support/server.ts'
import { command, commandsOf, own, register, untilStatus } from './support/scene.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

test('a client over WebSocket with the usual library gets a command and reports its outcome', async () => {
  const password = await register(server, 'browser')
  const client = await mqtt.connectAsync(server.mqttWebSocket, {
    clientId: 'browser',
    username: 'browser',
    password,
    reconnectPeriod: 0,
  })
  client.on('message', (topic, payload) => {
    const { id, attempt } = JSON.parse(payload.toString())
    if (topic === commandsOf('browser'))
      client.publish(
        own('browser', `commands/${id}/status`),
        JSON.stringify({ status: 'completed', attempt, result: 'ws' }),
        { qos: 1 },
      )
  })
  const [granted] = await client.subscribeAsync(commandsOf('browser'), { qos: 1 })
  expect(granted).toMatchObject({ qos: 1 })
  const id = await command(server, 'browser', { payload: 'x'.repeat(100_000) })
  expect(await untilStatus(server, id, 'completed')).toMatchObject({ result: 'ws' })
  expect((await server.api.get('/clients/browser')).body.presence).toBe('online')
  await client.endAsync()
})

test('a wrong key is answered 4 there too', async () => {
  await expect(
    mqtt.connectAsync(
      server.mqttWebSocket,
      { clientId: 'browser', username: 'browser', password: 'sbk_x', reconnectPeriod: 0 },
      false,
    ),
  ).rejects.toMatchObject({ code: 4 })
})

test('a WebSocket without the mqtt subprotocol, or on another path, is refused', async () => {
  const bare = new WebSocket(server.mqttWebSocket)
  const [code] = await once(bare, 'close')
  expect(code).toBe(1002)
  const elsewhere = new WebSocket(server.mqttWebSocket.replace('/mqtt', '/other'), 'mqtt')
  const [error] = await once(elsewhere, 'error')
  expect(String(error)).toContain('400')
  const page = await fetch(server.mqttWebSocket.replace('ws:', 'http:'))
  expect(page.status).toBe(426)
})
