import { afterAll, beforeAll, expect, test } from 'vitest'
import { startServer, type TestServer } from '../support/server.ts'
import { command, enter, logged, register, untilStatus } from './support/scene.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer({ PUBACK_TIMEOUT_SECONDS: 1 })
  await server.api.send('PUT', '/actions/repeatable', { delivery: 'at_least_once' })
})
afterAll(() => server.stop())

test('a client that never acknowledges is disconnected, its command is decided by its class, and others notice nothing', async () => {
  const key = await register(server, 'silent')
  const silent = await enter(server, 'silent', key)
  const other = await enter(server, 'other', await register(server, 'other'))
  const once = await command(server, 'silent')
  const repeated = await command(server, 'silent', { action: 'repeatable' })
  for (const _ of [1, 2]) await silent.nextCommand()
  while (!silent.closed) {
    const id = await command(server, 'other')
    const { messageId, payload } = await other.nextCommand()
    expect(payload.id).toBe(id)
    other.ack(messageId)
    await other.report(id, { status: 'completed', attempt: 1 })
    // Pings keep it alive, but do not stand for a PUBACK.
    if (!silent.closed) silent.send({ cmd: 'pingreq' })
  }
  expect(logged(server, 'no PUBACK in time: connection closed', { client: 'silent' })).toHaveLength(1)
  expect(await untilStatus(server, once, 'outcome_unknown')).toMatchObject({ error: { code: 'SESSION_LOST' } })
  const again = await enter(server, 'silent', key)
  const { messageId, payload } = await again.nextCommand()
  expect(payload).toMatchObject({ id: repeated, attempt: 1 })
  again.ack(messageId)
  await untilStatus(server, repeated, 'delivered')
  await other.ping()
  await Promise.all([again.end(), other.end()])
})

test('a client that acknowledges stays connected, however long it works', async () => {
  const device = await enter(server, 'steady', await register(server, 'steady'))
  const started = performance.now()
  while (performance.now() - started < 2500) {
    const id = await command(server, 'steady')
    const { messageId } = await device.nextCommand()
    device.ack(messageId)
    await device.report(id, { status: 'completed', attempt: 1 })
  }
  expect(device.closed).toBe(false)
  await device.end()
})
