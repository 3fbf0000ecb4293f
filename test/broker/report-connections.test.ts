import { afterAll, beforeAll, expect, test } from 'vitest'
import { connectDevice, type Device } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { command, commandsOf, enter, logged, own, register, untilStatus } from './support/scene.ts'

let server: TestServer
let password: string
let main: Device

beforeAll(async () => {
  server = await startServer()
  password = await register(server, 'p1')
  main = await enter(server, 'p1', password)
})
afterAll(() => server.stop())

const open = (suffix: string, clientId = 'p1', key = password) =>
  connectDevice(server, { clientId: `${clientId}~${suffix}`, username: clientId, password: key })
const reportTopic = (id: string) => own('p1', `commands/${id}/status`)
const presence = async () => (await server.api.get('/clients/p1')).body

test('a connection per report leaves the main connection alone for 100 reports', async () => {
  const since = (await presence()).presenceSince
  const id = await command(server, 'p1')
  const { messageId } = await main.nextCommand()
  main.ack(messageId)
  for (let done = 1; done <= 100; done++) {
    const reporter = await open('pub')
    expect(reporter.returnCode).toBe(0)
    await reporter.publish(reportTopic(id), { status: 'running', attempt: 1, progress: { done, total: 100 } })
    await reporter.end()
  }
  const reporter = await open('pub')
  await reporter.publish(reportTopic(id), { status: 'completed', attempt: 1 })
  await untilStatus(server, id, 'completed')
  const progress = await server.sql<{ done: number }>(
    "select (data -> 'progress' ->> 'done')::int as done from events where command_id = $1 and data ? 'progress' order by id",
    [id],
  )
  expect(progress.map(({ done }) => done)).toEqual(Array.from({ length: 100 }, (_, index) => index + 1))
  await main.ping()
  expect(await presence()).toMatchObject({ presence: 'online', presenceSince: since })
  const next = await command(server, 'p1')
  expect((await main.nextCommand()).payload.id).toBe(next)
  await main.report(next, { status: 'completed' })
})

test('several of them live side by side; the same id again replaces only its own older one', async () => {
  const [one, two] = await Promise.all([open('one'), open('two')])
  const oneAgain = await open('one')
  await one.whenClosed()
  await Promise.all(
    [two, oneAgain].map((device, index) => device.publish(own('p1', 'events/x'), { id: `side-${index}` })),
  )
  await main.ping()
  expect([two.closed, oneAgain.closed, main.closed]).toEqual([false, false, false])
  await Promise.all([two.end(), oneAgain.end()])
})

test('it subscribes to nothing', async () => {
  const reporter = await open('sub')
  const filters = [commandsOf('p1'), own('p1', 'config'), own('p1', 'replies')]
  expect(await reporter.subscribe(filters)).toEqual([128, 128, 128])
  expect(logged(server, 'subscription refused', { client: 'p1~sub', filter: filters[0] as string })).toHaveLength(1)
  await reporter.end()
})

test('it has no status and no will, and speaks for no other client', async () => {
  await register(server, 'p2')
  for (const topic of [own('p1', 'status'), own('p2', 'events/x'), commandsOf('p1')]) {
    const reporter = await open('forbidden')
    await expect(reporter.publish(topic, { id: 'x', state: 'busy' }), topic).rejects.toThrow('closed')
  }
  for (const topic of [own('p1', 'status'), own('p1', 'events/x')]) {
    const will = { topic, payload: Buffer.from('{"id":"will","state":"dead"}'), qos: 0 as const, retain: false }
    const refused = await connectDevice(server, { clientId: 'p1~will', username: 'p1', password, will })
    expect(refused.returnCode, topic).toBe(5)
  }
  expect((await presence()).reported).toBeNull()
})

test('alone it is no presence, and its reports count all the same', async () => {
  const key = await register(server, 'p3')
  const device = await enter(server, 'p3', key)
  const id = await command(server, 'p3')
  const { messageId } = await device.nextCommand()
  device.ack(messageId)
  await untilStatus(server, id, 'delivered')
  await device.end()
  await until(async () => (await server.api.get('/clients/p3')).body.presence === 'offline', 'offline')
  const reporter = await open('pub', 'p3', key)
  await reporter.publish(own('p3', `commands/${id}/status`), { status: 'completed' })
  await untilStatus(server, id, 'completed')
  expect((await server.api.get('/clients/p3')).body.presence).toBe('offline')
  await server.api.post('/clients/p3/disable')
  await reporter.whenClosed()
})
