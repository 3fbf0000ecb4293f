import { afterAll, beforeAll, expect, test } from 'vitest'
import { connectDevice, ROOT } from '../support/device.ts'
import { openStream, type SseStream } from '../support/event-source.ts'
import { type Http, httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer({ HTTP_PING_TIMEOUT_SECONDS: 0.5 })
})
afterAll(() => server.stop())

async function register(
  id: string,
  zones: string[] = [],
): Promise<{ id: string; key: string; http: Http; open(query?: string): Promise<SseStream> }> {
  const key = (await server.api.post('/clients', { id, zones })).body.clientKey as string
  return {
    id,
    key,
    http: httpClient(server.http, key),
    open: (query = '') => openStream(`${server.http}/api/events/${id}${query}`, key),
  }
}

const statusOf = async (id: string) => (await server.api.get(`/commands/${id}`)).body.status
const presenceOf = async (id: string) => (await server.api.get(`/clients/${id}`)).body.presence

test('commands come on the stream; queued when written, delivered with the first report, then the outcome', async () => {
  const client = await register('h1')
  const stream = await client.open()
  const { body } = await server.api.post('/commands', { clientId: 'h1', action: 'print', payload: { n: 1 } })
  const message = await until(() => stream.messages[0], 'the command')
  expect(message).toMatchObject({
    event: 'command',
    data: { type: 'command', id: body.id, attempt: 1, action: 'print', payload: { n: 1 } },
  })
  expect(await statusOf(body.id)).toBe('queued')
  expect(
    (await client.http.send('PUT', `/commands/${body.id}/status`, { status: 'accepted', attempt: 1 })).body,
  ).toMatchObject({ status: 'delivered' })
  expect((await client.http.send('PUT', `/commands/${body.id}/status`, { status: 'running' })).body).toMatchObject({
    status: 'running',
  })
  expect((await client.http.post(`/commands/${body.id}/result`, { pages: 1 })).body).toMatchObject({
    status: 'completed',
  })
  expect((await server.api.get(`/commands/${body.id}`)).body).toMatchObject({
    status: 'completed',
    result: { pages: 1 },
  })
  const types = (await server.api.get(`/commands/${body.id}/timeline`)).body.items.map(
    (event: { type: string }) => event.type,
  )
  expect(types).toEqual([
    'command.created',
    'execution.queued',
    'execution.delivered',
    'execution.reported',
    'execution.running',
    'execution.completed',
  ])
  stream.close()
  await until(async () => (await presenceOf('h1')) === 'offline', 'offline')
})

test('an error is the short form of failed', async () => {
  const client = await register('h2')
  const stream = await client.open()
  const { body } = await server.api.post('/commands', { clientId: 'h2', action: 'print' })
  await until(() => stream.messages[0], 'the command')
  await client.http.post(`/commands/${body.id}/error`, { message: 'no paper', code: 'PAPER', stack: 'at x' })
  expect((await server.api.get(`/commands/${body.id}`)).body).toMatchObject({
    status: 'failed',
    error: { code: 'PAPER', message: 'no paper' },
  })
  stream.close()
})

test('a cancel comes as an event of its own', async () => {
  const client = await register('h3')
  const stream = await client.open()
  const { body } = await server.api.post('/commands', { clientId: 'h3', action: 'print' })
  await until(() => stream.messages[0], 'the command')
  expect((await server.api.post(`/commands/${body.id}/cancel`, { reason: 'wrong' })).body).toMatchObject({
    requested: 1,
  })
  const message = await until(() => stream.messages[1], 'the cancel')
  expect(message).toMatchObject({ event: 'cancel', data: { type: 'cancel', id: body.id, attempt: 1, reason: 'wrong' } })
  await client.http.send('PUT', `/commands/${body.id}/status`, { status: 'cancelled', attempt: 1 })
  expect(await statusOf(body.id)).toBe('cancelled')
  stream.close()
})

test('shown online while it pings; work flows with or without', async () => {
  const client = await register('h4')
  const stream = await client.open()
  expect(await presenceOf('h4')).toBe('online')
  await until(async () => (await presenceOf('h4')) === 'offline', 'offline without pings')
  expect((await client.http.post('/clients/h4/ping', { state: 'online', version: '2' })).status).toBe(204)
  expect((await server.api.get('/clients/h4')).body).toMatchObject({ presence: 'online', reported: { version: '2' } })
  await until(async () => (await presenceOf('h4')) === 'offline', 'offline again')
  const { body } = await server.api.post('/commands', { clientId: 'h4', action: 'print' })
  await until(() => stream.messages[0], 'the command')
  await client.http.post(`/commands/${body.id}/result`, 1)
  expect(await statusOf(body.id)).toBe('completed')
  stream.close()
})

test('one session per client across the stream and MQTT: the newer one takes over, work follows it', async () => {
  const client = await register('h5')
  const stream = await client.open()
  const device = await connectDevice(server, { clientId: 'h5', password: client.key })
  await stream.ended
  await device.subscribe(`${ROOT}/clients/h5/commands`)
  const first = await server.api.post('/commands', { clientId: 'h5', action: 'print' })
  expect((await device.nextCommand()).payload).toMatchObject({ id: first.body.id })
  await device.report(first.body.id, { status: 'completed', attempt: 1 })
  const again = await client.open()
  await device.whenClosed()
  const second = await server.api.post('/commands', { clientId: 'h5', action: 'print' })
  expect((await until(() => again.messages[0], 'the command')).data.id).toBe(second.body.id)
  expect(device.received(`${ROOT}/clients/h5/commands`)).toHaveLength(1)
  await client.http.post(`/commands/${second.body.id}/result`, 1)
  expect(await presenceOf('h5')).toBe('online')
  again.close()
})

test('a zone command reaches HTTP and MQTT clients alike', async () => {
  const http = await register('h6', ['H'])
  const mqtt = await register('h7', ['H'])
  const stream = await http.open()
  const device = await connectDevice(server, { clientId: 'h7', password: mqtt.key })
  await device.subscribe([`${ROOT}/zones/H/commands`, `${ROOT}/clients/h7/commands`])
  const { body } = await server.api.post('/commands', { zone: 'H', action: 'lock' })
  await until(() => stream.messages[0] && device.received().length === 1, 'both have it')
  expect(stream.messages[0]?.data).toMatchObject({ id: body.id, target: { kind: 'zone', zone: 'H' } })
  expect(device.received()[0]?.topic).toBe(`${ROOT}/zones/H/commands`)
  await http.http.post(`/commands/${body.id}/result`, 1)
  await device.report(body.id, { status: 'completed', attempt: 1 })
  expect((await server.api.get(`/commands/${body.id}`)).body).toMatchObject({
    status: 'completed',
    counts: { completed: 2 },
  })
  stream.close()
  device.drop()
})

test('a stream that ends before the first report: unknown without a journal, sent again to the same journal', async () => {
  const client = await register('h8')
  const forgetful = await client.open()
  const lost = await server.api.post('/commands', { clientId: 'h8', action: 'print' })
  await until(() => forgetful.messages[0], 'the command')
  forgetful.close()
  await until(async () => (await statusOf(lost.body.id)) === 'outcome_unknown', 'outcome_unknown')
  const journaled = await client.open('?journalId=j1')
  const kept = await server.api.post('/commands', { clientId: 'h8', action: 'print' })
  await until(() => journaled.messages[0], 'the command')
  journaled.close()
  await until(async () => (await presenceOf('h8')) === 'offline', 'offline')
  const again = await client.open('?journalId=j1')
  expect((await until(() => again.messages[0], 'the command again')).data).toMatchObject({
    id: kept.body.id,
    attempt: 1,
  })
  again.close()
})

test('a report is at most as large as over MQTT', async () => {
  const client = await register('h11')
  const { body } = await server.api.post('/commands', { clientId: 'h11', action: 'print' })
  const large = await client.http.post(`/commands/${body.id}/result`, { text: 'x'.repeat(300 * 1024) })
  expect(large.body).toMatchObject({ status: 413, code: 'PAYLOAD_TOO_LARGE' })
  expect(await statusOf(body.id)).toBe('pending')
})

test('only with its own key, and only for its own commands', async () => {
  const client = await register('h9')
  const other = await register('h10')
  const { body } = await server.api.post('/commands', { clientId: 'h10', action: 'print' })
  expect((await client.http.get('/events/h10')).body).toMatchObject({ code: 'FORBIDDEN' })
  expect((await client.http.post('/clients/h10/ping', {})).body).toMatchObject({ code: 'FORBIDDEN' })
  expect((await client.http.send('PUT', `/commands/${body.id}/status`, { status: 'completed' })).body).toMatchObject({
    code: 'NOT_FOUND',
  })
  expect((await server.api.get('/events/h9')).body).toMatchObject({ code: 'UNAUTHORIZED' })
  expect((await client.http.get('/commands')).body).toMatchObject({ code: 'UNAUTHORIZED' })
  await server.api.post('/clients/h10/disable')
  expect((await other.http.get('/events/h10')).body).toMatchObject({ code: 'CLIENT_DISABLED' })
})
