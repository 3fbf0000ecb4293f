import { request } from 'node:http'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Device, startDevice } from '../support/device.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { expectProblem } from './support.ts'

let server: TestServer
let device: Device

beforeAll(async () => {
  server = await startServer()
  device = await startDevice(server, 'c1')
  await server.api.post('/clients', { id: 'away' })
})
afterAll(async () => {
  await device.end()
  await server.stop()
})

async function take(): Promise<string> {
  const { messageId, payload } = await device.nextCommand()
  device.ack(messageId)
  return payload.id as string
}

const seconds = (since: number): number => (performance.now() - since) / 1000

test.each([
  ['completed', { status: 'completed', result: { ok: true } }],
  ['failed', { status: 'failed', error: { code: 'JAM', message: 'paper' } }],
  ['rejected', { status: 'rejected', error: { code: 'NO', message: 'no' } }],
  ['outcome_unknown', { status: 'outcome_unknown' }],
])('POST with ?wait answers the moment it is %s', async (status, report) => {
  const start = performance.now()
  const waiting = server.api.post('/commands?wait=30', { clientId: 'c1', action: 'print' })
  const id = await take()
  await device.report(id, { status: 'running' })
  await device.report(id, report)
  const answer = await waiting
  expect(answer).toMatchObject({ status: 201, body: { id, status, completedAt: expect.any(String) } })
  expect(seconds(start)).toBeLessThan(10)
})

test('POST with ?wait answers when another request cancels the command', async () => {
  const waiting = server.api.post(
    '/commands?wait=30',
    { clientId: 'away', action: 'print' },
    { 'Idempotency-Key': 'w' },
  )
  const [pending] = await until(async () => {
    const found = await server.sql<{ id: string }>(`select command_id as id from idempotency_keys where key = 'w'`)
    return found.length > 0 ? found : undefined
  })
  await server.api.post(`/commands/${pending?.id}/cancel`, { reason: 'not needed' })
  expect(await waiting).toMatchObject({ status: 201, body: { status: 'cancelled' } })
})

test('POST with ?wait answers when the command expires', async () => {
  const answer = await server.api.post('/commands?wait=30', { clientId: 'away', action: 'print', ttlSeconds: 1 })
  expect(answer).toMatchObject({ status: 201, body: { status: 'expired' } })
})

test('when the time is up, the state so far is the answer, and not before', async () => {
  const start = performance.now()
  const answer = await server.api.post('/commands?wait=0.5', { clientId: 'away', action: 'print' })
  expect(answer).toMatchObject({ status: 201, body: { status: 'pending', counts: { pending: 1 } } })
  expect(answer.body.completedAt).toBeUndefined()
  expect(seconds(start)).toBeGreaterThanOrEqual(0.49)
})

test('the state so far is that of the end of the wait', async () => {
  const waiting = server.api.post('/commands?wait=1', { clientId: 'c1', action: 'print' })
  const id = await take()
  await device.report(id, { status: 'running' })
  expect(await waiting).toMatchObject({ status: 201, body: { id, status: 'running', startedAt: expect.any(String) } })
  await device.report(id, { status: 'completed' })
})

test('?wait=0 does not wait', async () => {
  const answer = await server.api.post('/commands?wait=0', { clientId: 'away', action: 'print' })
  expect(answer).toMatchObject({ status: 201, body: { status: 'pending' } })
})

test('GET with ?wait answers at once what is settled, and the rest the moment it settles; many may wait', async () => {
  const { body } = await server.api.post('/commands', { clientId: 'c1', action: 'print' })
  const waiting = Array.from({ length: 5 }, () => server.api.get(`/commands/${body.id}?wait=30`))
  const id = await take()
  expect(id).toBe(body.id)
  await device.report(id, { status: 'completed', result: 7 })
  for (const answer of await Promise.all(waiting)) {
    expect(answer).toMatchObject({ status: 200, body: { id, status: 'completed', result: 7 } })
  }
  const start = performance.now()
  expect((await server.api.get(`/commands/${id}?wait=30`)).body.status).toBe('completed')
  expect(seconds(start)).toBeLessThan(5)
})

test('a command that settles while it is being stored is not missed', async () => {
  const eager = await startDevice(server, 'eager')
  const answers = Array.from({ length: 40 }, () =>
    server.api.post('/commands?wait=30', { clientId: 'eager', action: 'print', priority: 10 }),
  )
  for (let index = 0; index < 40; index++) {
    const { messageId, payload } = await eager.nextCommand()
    eager.ack(messageId)
    await eager.report(payload.id as string, { status: 'completed' })
  }
  const start = performance.now()
  for (const answer of await Promise.all(answers)) expect(answer.body.status).toBe('completed')
  expect(seconds(start)).toBeLessThan(10)
  await eager.end()
})

test('GET of an unknown command with ?wait does not wait', async () => {
  const start = performance.now()
  const answer = await server.api.get('/commands/0198c0de-0000-7000-8000-000000000000?wait=30')
  expectProblem(answer, 404, 'NOT_FOUND')
  expect(seconds(start)).toBeLessThan(5)
})

test('a caller who leaves is forgotten, and the command goes its way', async () => {
  const outgoing = request(`${server.http}/api/commands?wait=60`, {
    method: 'POST',
    headers: { authorization: `Bearer ${ADMIN_TOKEN}`, 'content-type': 'application/json' },
  }).on('error', () => undefined)
  outgoing.end(JSON.stringify({ clientId: 'c1', action: 'print' }))
  const id = await take()
  outgoing.destroy()
  await device.report(id, { status: 'completed' })
  expect((await server.api.get(`/commands/${id}`)).body.status).toBe('completed')
})

test('waiting callers do not hold up the end of the server', async () => {
  const other = await startServer({ SHUTDOWN_SECONDS: 1 })
  await other.api.post('/clients', { id: 'away' })
  const waiting = other.api.post('/commands?wait=60', { clientId: 'away', action: 'print' }).then(
    (answer) => answer.status,
    () => 'closed',
  )
  await until(async () => (await other.sql('select 1 from commands')).length > 0, 'the command is stored')
  const start = performance.now()
  await other.stop()
  expect(seconds(start)).toBeLessThan(10)
  expect([201, 'closed']).toContain(await waiting)
})
