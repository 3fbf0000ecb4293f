import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Device } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import {
  command,
  commandsOf,
  enter,
  explain,
  register,
  statusOf,
  untilExplained,
  untilStatus,
} from './support/scene.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

const idsOf = (device: Device) =>
  device.received(commandsOf(device.clientId)).map(({ payload }) => payload.id as string)

const untilOffline = (clientId: string) =>
  until(async () => (await server.api.get(`/clients/${clientId}`)).body.presence === 'offline', `${clientId} offline`)

const inFlight = async (clientId: string) => {
  const [row] = await server.sql<{ count: number }>(
    "select count(*)::int from executions where client_id = $1 and status in ('queued', 'delivered', 'running')",
    [clientId],
  )
  return row?.count
}

test('exactly maxInFlight commands are out, and a settled one lets the next go, in order', async () => {
  const device = await enter(server, 'window', await register(server, 'window', { maxInFlight: 3 }))
  const ids: string[] = []
  for (let count = 0; count < 10; count++) ids.push(await command(server, 'window'))
  for (let settled = 0; settled <= 10; settled++) {
    const out = Math.min(3, 10 - settled)
    await until(() => idsOf(device).length === settled + out, `${settled + out} commands`)
    await device.ping()
    expect(idsOf(device)).toEqual(ids.slice(0, settled + out))
    expect(await inFlight('window')).toBe(out)
    if (settled + out < 10) expect(await explain(server, ids[settled + out] as string)).toBe('window_full')
    const [current] = [ids[settled]]
    if (!current) break
    // Whatever ends it frees its place, delivered or not, running or not.
    if (settled % 2) device.ack((await device.nextCommand()).messageId)
    else await device.nextCommand()
    if (settled % 3 === 0) await device.report(current, { status: 'running', attempt: 1 })
    expect(await inFlight('window')).toBe(out)
    await device.report(current, { status: settled % 4 ? 'completed' : 'rejected', attempt: 1 })
  }
  await device.end()
})

test('the most urgent goes first, then the oldest', async () => {
  const key = await register(server, 'order', { maxInFlight: 1 })
  const priorities = [5, 1, 9, 5, 9, 3]
  const ids: string[] = []
  for (const priority of priorities) ids.push(await command(server, 'order', { priority }))
  const device = await enter(server, 'order', key)
  const expected = [2, 4, 0, 3, 5, 1].map((index) => ids[index] as string)
  for (const id of expected) {
    const { payload } = await device.nextCommand()
    expect(payload.id).toBe(id)
    await device.report(id, { status: 'completed', attempt: 1 })
  }
  expect(idsOf(device)).toEqual(expected)
  await device.end()
})

test('priority 10 passes the full window, priority 9 does not', async () => {
  const device = await enter(server, 'emergency', await register(server, 'emergency', { maxInFlight: 1 }))
  const ordinary = await command(server, 'emergency')
  expect((await device.nextCommand()).payload.id).toBe(ordinary)
  const urgent = await command(server, 'emergency', { priority: 9 })
  await untilExplained(server, urgent, 'window_full')
  const stops = await Promise.all([1, 2, 3].map(() => command(server, 'emergency', { priority: 10 })))
  for (const _ of stops) expect(stops).toContain((await device.nextCommand()).payload.id)
  expect(await statusOf(server, urgent)).toBe('pending')
  for (const id of [...stops, ordinary]) await device.report(id, { status: 'completed', attempt: 1 })
  expect((await device.nextCommand()).payload.id).toBe(urgent)
  await device.end()
})

test('a wider window lets more go at once', async () => {
  const device = await enter(server, 'widened', await register(server, 'widened', { maxInFlight: 1 }))
  for (let count = 0; count < 4; count++) await command(server, 'widened')
  await device.nextCommand()
  await device.ping()
  expect(idsOf(device)).toHaveLength(1)
  await server.api.send('PATCH', '/clients/widened', { maxInFlight: 3 })
  await until(() => idsOf(device).length === 3, 'three commands')
  await device.ping()
  expect(await inFlight('widened')).toBe(3)
  await device.end()
})

test('acknowledged work still fills the window after a reconnect', async () => {
  const key = await register(server, 'filled', { maxInFlight: 1 })
  const first = await enter(server, 'filled', key)
  const id = await command(server, 'filled')
  first.ack((await first.nextCommand()).messageId)
  await untilStatus(server, id, 'delivered')
  first.drop()
  await untilOffline('filled')
  const second = await enter(server, 'filled', key)
  const next = await command(server, 'filled')
  await untilExplained(server, next, 'window_full')
  await second.report(id, { status: 'completed', attempt: 1 })
  expect((await second.nextCommand()).payload.id).toBe(next)
  await second.end()
})

test('explain names what a command waits for: the client, its time, the PUBACK, the answer to a cancel', async () => {
  const key = await register(server, 'explained')
  const id = await command(server, 'explained')
  expect(await explain(server, id)).toBe('client_offline')
  const notBefore = new Date(Date.now() + 3_600_000).toISOString()
  const later = await command(server, 'explained', { notBefore })
  expect(await explain(server, later)).toBe('not_due')
  const device = await enter(server, 'explained', key)
  const { messageId } = await device.nextCommand()
  await untilExplained(server, id, 'waiting_for_puback')
  device.ack(messageId)
  await untilExplained(server, id, 'waiting_for_start')
  await server.api.post(`/commands/${id}/cancel`, {})
  expect(await explain(server, id)).toBe('cancel_requested')
  expect(await explain(server, later)).toBe('not_due')
  await device.end()
})

test('a command with notBefore is sent at its time, not earlier', async () => {
  const device = await enter(server, 'scheduled', await register(server, 'scheduled'))
  const due = Date.now() + 1000
  const id = await command(server, 'scheduled', { notBefore: new Date(due).toISOString() })
  const sooner = await command(server, 'scheduled')
  expect((await device.nextCommand()).payload.id).toBe(sooner)
  const { payload } = await device.nextCommand()
  expect(payload.id).toBe(id)
  expect(Date.parse(payload.sentAt as string)).toBeGreaterThanOrEqual(due)
  await device.end()
})
