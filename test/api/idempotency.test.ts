import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startDevice } from '../support/device.ts'
import { httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { createPrincipal, expectProblem, stored } from './support.ts'

let server: TestServer
let brief: TestServer

beforeAll(async () => {
  server = await startServer({ MAX_PENDING_PER_CLIENT: 10 })
  brief = await startServer({ IDEMPOTENCY_KEY_SECONDS: 1 })
  await server.api.post('/clients', { id: 'c1' })
  await brief.api.post('/clients', { id: 'c1' })
})
afterAll(async () => {
  await server.stop()
  await brief.stop()
})

const body = { clientId: 'c1', action: 'print', payload: { copies: 1 } }
const withKey = (key: string = randomUUID()): Record<string, string> => ({ 'Idempotency-Key': key })

const commandsOf = async (clientId: string): Promise<number> =>
  Number(
    (await server.sql<{ n: string }>('select count(*) as n from executions where client_id = $1', [clientId]))[0]?.n,
  )

test('the same key and body answer the command as it is now, and store nothing', async () => {
  const device = await startDevice(server, 'now')
  const request = { ...body, clientId: 'now' }
  const headers = withKey()
  const first = await server.api.post('/commands', request, headers)
  expect(first.status).toBe(201)
  expect(first.headers.get('idempotent-replayed')).toBeNull()
  const { messageId } = await device.nextCommand()
  device.ack(messageId)
  await device.report(first.body.id, { status: 'completed', result: { pages: 3 } })
  const before = await stored(server)
  const second = await server.api.post('/commands', request, headers)
  expect(second).toMatchObject({
    status: 200,
    body: { id: first.body.id, status: 'completed', result: { pages: 3 }, payload: { copies: 1 } },
  })
  expect(second.headers.get('idempotent-replayed')).toBe('true')
  expect(second.headers.get('location')).toBe(`/api/commands/${first.body.id}`)
  expect(await stored(server)).toEqual(before)
  expect(device.received().filter(({ payload }) => payload.type === 'command')).toHaveLength(1)
  await device.end()
  // Its going offline is an event: the next test counts events.
  await until(async () => (await server.api.get('/clients/now')).body.presence === 'offline', 'now offline')
})

test.each([
  ['another payload', { ...body, payload: { copies: 2 } }],
  ['another client', { ...body, clientId: 'c2' }],
  ['another priority', { ...body, priority: 6 }],
  ['a further field', { ...body, ttlSeconds: 60 }],
  ['a body without its payload', { clientId: 'c1', action: 'print' }],
  ['a client that does not exist', { ...body, clientId: 'nobody' }],
])('the same key with %s is IDEMPOTENCY_MISMATCH and stores nothing', async (_name, other) => {
  const headers = withKey()
  const first = await server.api.post('/commands', body, headers)
  expect(first.status).toBe(201)
  const before = await stored(server)
  expectProblem(await server.api.post('/commands', other, headers), 422, 'IDEMPOTENCY_MISMATCH')
  expect(await stored(server)).toEqual(before)
  expect((await server.api.post('/commands', body, headers)).body.id).toBe(first.body.id)
  await server.api.post(`/commands/${first.body.id}/cancel`)
})

test('a key belongs to its principal', async () => {
  const other = httpClient(server.http, await createPrincipal(server, 'admin', 'second'))
  const headers = withKey()
  const mine = await server.api.post('/commands', body, headers)
  const theirs = await other.post('/commands', { ...body, payload: 'theirs' }, headers)
  expect([mine.status, theirs.status]).toEqual([201, 201])
  expect(theirs.body).toMatchObject({ createdBy: 'second', payload: 'theirs' })
  expect(theirs.body.id).not.toBe(mine.body.id)
  expect((await server.api.post('/commands', body, headers)).body.id).toBe(mine.body.id)
})

test('20 concurrent twins are one command, and each of them gets it', async () => {
  await server.api.post('/clients', { id: 'twins' })
  const headers = withKey()
  const request = { ...body, clientId: 'twins' }
  const answers = await Promise.all(Array.from({ length: 20 }, () => server.api.post('/commands', request, headers)))
  expect(answers.map(({ status }) => status).sort()).toEqual([...Array(19).fill(200), 201])
  expect(new Set(answers.map((answer) => answer.body.id)).size).toBe(1)
  for (const answer of answers) {
    expect(answer.headers.get('idempotent-replayed')).toBe(answer.status === 200 ? 'true' : null)
  }
  expect(await commandsOf('twins')).toBe(1)
})

test('20 concurrent requests with one key and two bodies are one command; the other body is refused', async () => {
  await server.api.post('/clients', { id: 'rivals' })
  const headers = withKey()
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      server.api.post('/commands', { clientId: 'rivals', action: 'print', payload: index % 2 }, headers),
    ),
  )
  const winner = answers.find(({ status }) => status === 201)?.body.payload
  for (const [index, answer] of answers.entries()) {
    if (index % 2 === winner) expect([200, 201]).toContain(answer.status)
    else expectProblem(answer, 422, 'IDEMPOTENCY_MISMATCH')
  }
  expect(await commandsOf('rivals')).toBe(1)
})

test('a twin that was refused does not stand in the way of one that is not', async () => {
  await server.api.post('/clients', { id: 'mixed' })
  const headers = withKey()
  const [late, good] = await Promise.all([
    server.api.post('/commands', { clientId: 'mixed', action: 'print', expiresAt: '2020-01-01T00:00:00Z' }, headers),
    server.api.post('/commands', { clientId: 'mixed', action: 'print' }, headers),
  ])
  expect(good.status).toBe(201)
  expect([400, 422]).toContain(late.status)
  expect(await commandsOf('mixed')).toBe(1)
})

test('a refusal is not remembered: the same key is accepted once the cause is gone', async () => {
  const headers = withKey()
  const request = { ...body, clientId: 'later' }
  expectProblem(await server.api.post('/commands', request, headers), 404, 'NOT_FOUND')
  await server.api.post('/clients', { id: 'later' })
  await server.api.post('/clients/later/disable')
  expectProblem(await server.api.post('/commands', request, headers), 403, 'CLIENT_DISABLED')
  await server.api.post('/clients/later/enable')
  expectProblem(await server.api.post('/commands', { ...request, priority: 11 }, headers), 400, 'INVALID_INPUT')
  expect((await server.api.post('/commands', request, headers)).status).toBe(201)
})

test('?wait is honoured by a repetition, too', async () => {
  const device = await startDevice(server, 'waited')
  const request = { ...body, clientId: 'waited' }
  const headers = withKey()
  const { body: created } = await server.api.post('/commands', request, headers)
  const repeated = server.api.post('/commands?wait=20', request, headers)
  const { messageId } = await device.nextCommand()
  device.ack(messageId)
  await device.report(created.id, { status: 'completed' })
  const answer = await repeated
  expect(answer).toMatchObject({ status: 200, body: { id: created.id, status: 'completed' } })
  expect(answer.headers.get('idempotent-replayed')).toBe('true')
  await device.end()
})

test('a repetition is answered though its client is disabled, deleted, or has a full queue by now', async () => {
  await server.api.post('/clients', { id: 'gone' })
  const request = { ...body, clientId: 'gone' }
  const headers = withKey()
  const { body: created } = await server.api.post('/commands', request, headers)
  const replayed = async () => {
    const answer = await server.api.post('/commands', request, headers)
    expect(answer.status).toBe(200)
    expect(answer.body.id).toBe(created.id)
  }
  for (let index = 1; index < 10; index++) {
    expect((await server.api.post('/commands', request)).status).toBe(201)
  }
  expectProblem(await server.api.post('/commands', request), 429, 'QUEUE_FULL')
  await replayed()
  await server.api.post('/clients/gone/disable')
  await replayed()
  await server.api.send('DELETE', '/clients/gone')
  await replayed()
})

test('a repetition is answered though its action has a stricter schema by now', async () => {
  await server.api.post('/clients', { id: 'strict' })
  const request = { clientId: 'strict', action: 'label', payload: 'text' }
  const headers = withKey()
  const { body: created } = await server.api.post('/commands', request, headers)
  await server.api.send('PUT', '/actions/label', { payloadSchema: { type: 'number' } })
  expectProblem(await server.api.post('/commands', request), 400, 'INVALID_INPUT')
  expect(await server.api.post('/commands', request, headers)).toMatchObject({ status: 200, body: { id: created.id } })
})

test('a key is forgotten after IDEMPOTENCY_KEY_SECONDS, and the next use of it is a new command', async () => {
  const headers = withKey()
  const first = await brief.api.post('/commands', body, headers)
  expect(first.status).toBe(201)
  expect((await brief.api.post('/commands', body, headers)).status).toBe(200)
  const later = await until(async () => {
    const answer = await brief.api.post('/commands', body, headers)
    return answer.status === 201 ? answer : undefined
  }, 'the key is forgotten')
  expect(later.body.id).not.toBe(first.body.id)
  expect(Date.parse(later.body.createdAt) - Date.parse(first.body.createdAt)).toBeGreaterThanOrEqual(1000)
})
