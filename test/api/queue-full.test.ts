import { afterAll, beforeAll, expect, test } from 'vitest'
import { connectDevice, ROOT } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { expectProblem } from './support.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer({ MAX_PENDING_PER_CLIENT: 5 })
})
afterAll(() => server.stop())

const create = async (id: string): Promise<string> => (await server.api.post('/clients', { id })).body.clientKey
const send = (clientId: string, more: Record<string, unknown> = {}, headers?: Record<string, string>) =>
  server.api.post('/commands', { clientId, action: 'print', ...more }, headers)
const many = <T>(count: number, make: (index: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => make(index)))
const statuses = (answers: { status: number }[]): Record<number, number> => {
  const counts: Record<number, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}
const pending = async (clientId: string): Promise<number> =>
  (await server.sql(`select 1 from executions where client_id = $1 and status = 'pending'`, [clientId])).length

test('the sixth waiting command is QUEUE_FULL and says when to come back; another client is not concerned', async () => {
  await create('c1')
  await create('other')
  for (let index = 0; index < 5; index++) expect((await send('c1')).status).toBe(201)
  const refused = await send('c1')
  expectProblem(refused, 429, 'QUEUE_FULL')
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
  expect(refused.body.detail).toContain('5')
  expect(await pending('c1')).toBe(5)
  expect((await send('other')).status).toBe(201)
})

test('priority 10 passes a full queue, priority 9 does not', async () => {
  await create('urgent')
  await many(5, () => send('urgent'))
  expectProblem(await send('urgent', { priority: 9 }), 429, 'QUEUE_FULL')
  expect(statuses(await many(10, () => send('urgent', { priority: 10 })))).toEqual({ 201: 10 })
  expect(await pending('urgent')).toBe(15)
})

test('of 30 concurrent commands exactly five are accepted', async () => {
  await create('rush')
  expect(statuses(await many(30, () => send('rush')))).toEqual({ 201: 5, 429: 25 })
  expect(await pending('rush')).toBe(5)
})

test('what is refused for another reason takes no place, though it comes at the same moment', async () => {
  await create('faulty')
  const answers = await many(30, (index) =>
    send('faulty', index % 6 === 5 ? {} : { expiresAt: '2020-01-01T00:00:00Z' }),
  )
  expect(statuses(answers)).toEqual({ 201: 5, 400: 25 })
})

test('repetitions with an Idempotency-Key take one place together, though they come at the same moment', async () => {
  await create('twins')
  const answers = await many(30, (index) =>
    send('twins', { payload: index % 5 }, { 'Idempotency-Key': `twin-${index % 5}` }),
  )
  expect(statuses(answers)).toEqual({ 201: 5, 200: 25 })
  expect(await pending('twins')).toBe(5)
  expectProblem(await send('twins'), 429, 'QUEUE_FULL')
})

test('repetitions take no place from other commands that come at the same moment, or later', async () => {
  await create('mixed')
  const twin = () => send('mixed', {}, { 'Idempotency-Key': 'mixed' })
  const answers = await many(30, (index) => (index % 10 === 9 ? send('mixed') : twin()))
  expect(statuses(answers)).toEqual({ 201: 4, 200: 26 })
  const later = await many(30, (index) => (index === 29 ? send('mixed') : twin()))
  expect(statuses(later)).toEqual({ 201: 1, 200: 29 })
})

test('twins that a full queue refuses are all told so', async () => {
  await create('full')
  await many(5, () => send('full'))
  expect(statuses(await many(10, () => send('full', {}, { 'Idempotency-Key': 'full' })))).toEqual({ 429: 10 })
})

test('a place is free again when a command is cancelled, expires or is handed over', async () => {
  const key = await create('free')
  const [first] = await many(5, () => send('free'))
  expectProblem(await send('free'), 429, 'QUEUE_FULL')
  await server.api.post(`/commands/${first?.body.id}/cancel`)
  expect((await send('free')).status).toBe(201)
  expectProblem(await send('free'), 429, 'QUEUE_FULL')
  const device = await connectDevice(server, { clientId: 'free', password: key })
  await device.subscribe(`${ROOT}/clients/free/commands`)
  await device.nextCommand()
  for (let index = 0; index < 3; index++) expect((await send('free')).status).toBe(201)
  await device.end()
})

test('a client with a full queue is left out of a zone command by name, and the others get it', async () => {
  for (const id of ['q-full', 'q-free'])
    expect((await server.api.post('/clients', { id, zones: ['Q'] })).status).toBe(201)
  await many(5, () => send('q-full'))
  const { status, body } = await server.api.post('/commands', { zone: 'Q', action: 'print' })
  expect(status).toBe(201)
  expect(body).toMatchObject({ total: 1, excluded: [{ clientId: 'q-full', reason: 'queue_full' }] })
  expect(await pending('q-free')).toBe(1)
  expect(await pending('q-full')).toBe(5)
  const urgent = await server.api.post('/commands', { zone: 'Q', action: 'print', priority: 10 })
  expect(urgent.body).toMatchObject({ total: 2, excluded: [] })
})
