import { generate } from 'mqtt-packet'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Device, ROOT } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { command, enter, own, register, statusOf, technician, timelineOf, untilStatus } from './support/scene.ts'

let server: TestServer
let device: Device

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())
beforeEach(async () => {
  device = await join()
})
afterEach(() => device.end())

let joined = 0
async function join(): Promise<Device> {
  const clientId = `r${++joined}`
  const one = await enter(server, clientId, await register(server, clientId))
  await one.subscribe(own(clientId, 'replies'))
  return one
}

const topicOf = (rest: string) => own(device.clientId, rest)

/** A command that the device has acknowledged. */
async function delivered(body: Record<string, unknown> = {}): Promise<string> {
  const id = await command(server, device.clientId, body)
  const { messageId, payload } = await device.nextCommand()
  expect(payload.id).toBe(id)
  device.ack(messageId)
  await untilStatus(server, id, 'delivered')
  return id
}

const pubacks = (of: Device) => of.packets.filter(({ cmd }) => cmd === 'puback').map(({ messageId }) => messageId)
const replies = (of: Device) => of.received(own(of.clientId, 'replies')).map(({ payload }) => payload)
const rowOf = async (id: string) => (await server.sql('select * from executions where command_id = $1', [id]))[0]

/** While `statement` holds what the device's message needs, it gets no PUBACK; it gets it once that is let go. */
async function acknowledgedAfterCommit(statement: string, values: unknown[], send: () => Promise<void>): Promise<void> {
  const holder = new pg.Client({ connectionString: server.database_.url })
  await holder.connect()
  try {
    await holder.query('begin')
    await holder.query(statement, values)
    const before = pubacks(device).length
    const acknowledged = send()
    await until(async () => {
      const waiting = await server.sql(
        "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
      )
      return waiting.length > 0
    }, 'the commit waits')
    await device.ping()
    expect(pubacks(device)).toHaveLength(before)
    await holder.query('commit')
    await acknowledged
  } finally {
    await holder.end()
  }
}

test('a report is acknowledged only after its commit', async () => {
  const id = await delivered()
  await acknowledgedAfterCommit('select 1 from executions where command_id = $1 for update', [id], () =>
    device.report(id, { status: 'completed', attempt: 1, result: { ok: true } }),
  )
  expect(await rowOf(id)).toMatchObject({ status: 'completed', result: { ok: true } })
})

test('so is an event of the device', async () => {
  await acknowledgedAfterCommit('lock table events in exclusive mode', [], () =>
    device.publish(topicOf('events/scan'), { id: 'held', code: '4711' }),
  )
  const stored = await server.sql("select data from events where client_event_id = 'held'")
  expect(stored).toMatchObject([{ data: { type: 'scan', event: { code: '4711' } } }])
})

test('reports sent without waiting keep their order, and their PUBACKs come in that order', async () => {
  const id = await delivered()
  const first = 40_000
  const count = 50
  const packets = Array.from({ length: count }, (_, index) =>
    generate({
      cmd: 'publish',
      topic: topicOf(`commands/${id}/status`),
      payload: JSON.stringify({ status: 'running', attempt: 1, progress: { done: index + 1, total: count } }),
      messageId: first + index,
      qos: 1,
      retain: false,
      dup: false,
    }),
  )
  // One half in one write, the other in a write each: both ways the bytes may arrive.
  device.write(Buffer.concat(packets.slice(0, count / 2)))
  for (const packet of packets.slice(count / 2)) device.write(packet)
  await until(() => pubacks(device).includes(first + count - 1), 'the last PUBACK')
  const ids = Array.from({ length: count }, (_, index) => first + index)
  expect(pubacks(device).filter((messageId) => (messageId ?? 0) >= first)).toEqual(ids)
  const events = await server.sql<{ done: number }>(
    "select (data -> 'progress' ->> 'done')::int as done from events where command_id = $1 and data ? 'progress' order by id",
    [id],
  )
  expect(events.map(({ done }) => done)).toEqual(Array.from({ length: count }, (_, index) => index + 1))
  expect(await rowOf(id)).toMatchObject({ status: 'running', progress: { done: count, total: count } })
  await device.report(id, { status: 'completed' })
})

describe('a malformed report is acknowledged, answered on replies, and nothing is stored', () => {
  const cases: [name: string, payload: string | Buffer, code: string][] = [
    ['no JSON', 'completed', 'INVALID_INPUT'],
    ['nothing at all', '', 'INVALID_INPUT'],
    ['no object', '[]', 'INVALID_INPUT'],
    ['no status', '{}', 'INVALID_INPUT'],
    ['an unknown status', '{"status":"flying"}', 'INVALID_INPUT'],
    ['a status that only the server gives', '{"status":"delivered"}', 'INVALID_INPUT'],
    ['attempt 0', '{"status":"completed","attempt":0}', 'INVALID_INPUT'],
    [
      'invalid UTF-8',
      Buffer.concat([Buffer.from('{"status":"completed","result":"'), Buffer.from([0xff]), Buffer.from('"}')]),
      'INVALID_INPUT',
    ],
    ['U+0000 in the result', '{"status":"completed","result":"a\\u0000b"}', 'INVALID_INPUT'],
    ['U+0000 in the error', '{"status":"failed","error":{"code":"a\\u0000b","message":""}}', 'INVALID_INPUT'],
    ['U+0000 in the progress', '{"status":"running","progress":{"message":"\\u0000"}}', 'INVALID_INPUT'],
    ['half a surrogate pair', '{"status":"completed","result":"\\ud800"}', 'INVALID_INPUT'],
    ['progress beyond any number', '{"status":"running","progress":{"done":1e999}}', 'INVALID_INPUT'],
    ['more than 256 KiB', JSON.stringify({ status: 'completed', result: 'x'.repeat(262_144) }), 'PAYLOAD_TOO_LARGE'],
    [
      'very deep nesting',
      `{"status":"completed","result":${'['.repeat(50_000)}${']'.repeat(50_000)}}`,
      'INVALID_INPUT',
    ],
  ]
  test.each(cases)('%s', async (_name, payload, code) => {
    const id = await delivered()
    const before = await rowOf(id)
    const answered = replies(device).length
    const topic = topicOf(`commands/${id}/status`)
    await device.publish(topic, payload)
    await until(() => replies(device).length > answered, 'the reply')
    expect(replies(device).slice(answered)).toEqual([{ type: 'error', code, message: expect.any(String), topic }])
    expect(await rowOf(id)).toEqual(before)
    expect(await timelineOf(server, id)).toEqual(['command.created', 'execution.queued', 'execution.delivered'])
    await device.report(id, { status: 'completed' })
    expect(await statusOf(server, id)).toBe('completed')
  })
})

test("a report about no command, or another client's, is acknowledged and answered with an error", async () => {
  const id = await delivered()
  const other = await join()
  const before = await rowOf(id)
  for (const commandId of ['0198f6a0-0000-7000-8000-000000000000', 'no-uuid', id]) {
    const answered = replies(other).length
    await other.report(commandId, { status: 'completed', attempt: 1 })
    await until(() => replies(other).length > answered, 'the reply')
    expect(replies(other).at(-1)).toMatchObject({
      type: 'error',
      code: 'NOT_FOUND',
      topic: own(other.clientId, `commands/${commandId}/status`),
    })
  }
  expect(await rowOf(id)).toEqual(before)
  await other.end()
})

test('a retained flag on a report or event is not kept', async () => {
  const id = await delivered()
  await device.publish(topicOf(`commands/${id}/status`), { status: 'completed', result: 7 }, { retain: true })
  await device.publish(topicOf('events/scan'), { id: 'retained-1' }, { retain: true })
  expect(await rowOf(id)).toMatchObject({ status: 'completed', result: 7 })
  const watcher = await technician(server, 'retained-watcher', `${ROOT}/#`)
  await device.publish(topicOf('events/last'), { id: 'retained-2' })
  await until(() => watcher.received(topicOf('events/last')).length > 0, 'a live event')
  const retained = watcher.received().filter(({ retain }) => retain)
  expect(retained.filter(({ topic }) => !/\/clients\/[^/]+\/(config|status)$/.test(topic))).toEqual([])
  expect(retained.length).toBeGreaterThan(0)
  await watcher.end()
})

test('progress, result and error are kept', async () => {
  const failing = await delivered()
  await device.report(failing, { status: 'running', attempt: 1, progress: { done: 1, total: 4, message: 'one' } })
  await device.report(failing, { status: 'running', attempt: 1, progress: { done: 2, total: 4 } })
  expect(await rowOf(failing)).toMatchObject({ status: 'running', progress: { done: 2, total: 4 } })
  await device.report(failing, { status: 'failed', attempt: 1, error: { code: 'JAM', message: 'paper jam' } })
  const { body } = await server.api.get(`/commands/${failing}`)
  expect(body).toMatchObject({ status: 'failed', error: { code: 'JAM', message: 'paper jam' } })

  const refused = await delivered()
  await device.report(refused, { status: 'rejected', attempt: 1, error: { code: 'BUSY', message: 'busy' } })
  expect(await untilStatus(server, refused, 'rejected')).toMatchObject({ error: { code: 'BUSY' } })

  const completed = await delivered()
  await device.report(completed, { status: 'completed', attempt: 1, result: { pages: [1, 2], ok: true } })
  expect(await untilStatus(server, completed, 'completed')).toMatchObject({ result: { pages: [1, 2], ok: true } })
})

test('repeated, late and accepted reports change nothing and are recorded', async () => {
  const id = await delivered()
  await device.report(id, { status: 'accepted', attempt: 1 })
  expect(await rowOf(id)).toMatchObject({ status: 'delivered' })
  await device.report(id, { status: 'completed', attempt: 1, result: 1 })
  const settled = await rowOf(id)
  const said = [
    { status: 'completed', attempt: 1, result: 2 },
    { status: 'failed', attempt: 1, error: { code: 'LATE', message: 'late' } },
    { status: 'running', attempt: 1, progress: { done: 1 } },
    { status: 'cancelled', attempt: 1 },
    { status: 'completed', attempt: 2, result: 3 },
  ]
  for (const report of said) await device.report(id, report)
  const { version: _, ...now } = (await rowOf(id)) as Record<string, unknown>
  const { version: __, ...then } = settled as Record<string, unknown>
  expect(now).toEqual(then)
  const { body } = await server.api.get(`/commands/${id}/timeline`)
  const recorded = body.items.filter(({ type }: { type: string }) => type === 'execution.reported')
  expect(recorded.map(({ data }: { data: { status: string } }) => data.status)).toEqual([
    'accepted',
    ...said.map(({ status }) => status),
  ])
})

test('a report without attempt, and one that skips `running`, count', async () => {
  const id = await delivered()
  await device.report(id, { status: 'completed', unknownField: 'is ignored' })
  expect(await rowOf(id)).toMatchObject({ status: 'completed', attempt: 1 })
})

test('a report that overtakes the PUBACK counts, and the PUBACK then changes nothing', async () => {
  const id = await command(server, device.clientId)
  const { messageId } = await device.nextCommand()
  await device.report(id, { status: 'completed', attempt: 1 })
  device.ack(messageId)
  await device.ping()
  expect(await rowOf(id)).toMatchObject({ status: 'completed', delivered_at: null })
})

test('a device event is stored once though it is repeated, and a malformed one is answered', async () => {
  const stored = () =>
    server.sql("select data from events where type = 'client.event' and client_id = $1 and client_event_id = 'e1'", [
      device.clientId,
    ])
  const event = { id: 'e1', seq: 3, at: '2026-01-01T00:00:00Z', barcode: '4006381333931' }
  for (let round = 0; round < 3; round++) await device.publish(topicOf('events/scan'), event)
  await Promise.all([1, 2, 3].map(() => device.publish(topicOf('events/scan'), event)))
  expect(await stored()).toEqual([{ data: { type: 'scan', event } }])
  const answered = replies(device).length
  await device.publish(topicOf('events/scan'), { barcode: 'without id' })
  await device.publish(topicOf('events/scan'), '{"id":"e2","text":"\\u0000"}')
  await until(() => replies(device).length === answered + 2, 'two replies')
  for (const reply of replies(device).slice(answered)) expect(reply).toMatchObject({ code: 'INVALID_INPUT' })
})

test("a device's events are stored in the order in which it sent them, whatever their ids", async () => {
  const ids = Array.from({ length: 12 }, (_, index) => `e${99 - index}`)
  await Promise.all(ids.map((id) => device.publish(topicOf('events/scan'), { id })))
  const stored = await server.sql<{ id: string }>(
    "select client_event_id as id from events where type = 'client.event' and client_id = $1 order by events.id",
    [device.clientId],
  )
  expect(stored.map(({ id }) => id)).toEqual(ids)
})
