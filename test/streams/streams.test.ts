import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startDevice } from '../support/device.ts'
import { openStream, type SseMessage } from '../support/event-source.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer({}, { ownPostgres: true })
})
afterAll(() => server.stop())

const open = (path: string, lastEventId?: string) => openStream(`${server.http}/api${path}`, ADMIN_TOKEN, lastEventId)

test("a command's stream shows its life and ends with the command", async () => {
  const device = await startDevice(server, 's1')
  const { body } = await server.api.post('/commands', { clientId: 's1', action: 'print' })
  const stream = await open(`/commands/${body.id}/stream`)
  const { messageId } = await device.nextCommand()
  device.ack(messageId)
  await device.report(body.id, { status: 'running', attempt: 1 })
  await until(
    () => stream.messages.some(({ event }) => event === 'execution.running'),
    'running is streamed while it runs',
  )
  await device.report(body.id, { status: 'completed', attempt: 1, result: 1 })
  await stream.ended
  expect(stream.messages.map(({ event }) => event)).toEqual([
    'command.created',
    'execution.queued',
    'execution.delivered',
    'execution.running',
    'execution.completed',
    'settled',
  ])
  expect(stream.messages.at(-1)?.data).toMatchObject({ id: body.id, status: 'completed', result: 1 })
  device.drop()
})

test('the feed can be filtered by type, zone and client', async () => {
  await server.api.post('/clients', { id: 'f1', zones: ['F'] })
  await server.api.post('/clients', { id: 'f2', zones: ['G'] })
  const [byType, byZone, byClient] = await Promise.all([
    open('/events?types=command.created'),
    open('/events?zone=F'),
    open('/events?clientId=f2'),
  ])
  for (const clientId of ['f1', 'f2']) {
    const { body } = await server.api.post('/commands', { clientId, action: 'print' })
    await server.api.post(`/commands/${body.id}/cancel`, {})
  }
  await until(
    () => byType.messages.length === 2 && byZone.messages.length === 3 && byClient.messages.length === 3,
    'all events',
  )
  expect(byType.messages.every(({ event }) => event === 'command.created')).toBe(true)
  expect(new Set(byZone.messages.map(({ data }) => data.clientId))).toEqual(new Set(['f1']))
  expect(new Set(byClient.messages.map(({ data }) => data.clientId))).toEqual(new Set(['f2']))
  for (const stream of [byType, byZone, byClient]) stream.close()
})

test('an id that is none, and a command that does not exist, are refused before anything is streamed', async () => {
  await expect(open('/events', 'x')).rejects.toThrow('INVALID_INPUT')
  await expect(open('/commands/00000000-0000-7000-8000-000000000000/stream')).rejects.toThrow('NOT_FOUND')
})

test('8 concurrent writers at more than 2000 events a second, a reader that is cut off at random: no gap and no duplicate', async () => {
  const WRITERS = 8
  const EVENTS = 1500
  const start = await open('/events?types=client.event')
  start.close()
  const first = (
    await server.sql<{ xid: string; id: number }>(
      'select xid::text as xid, id from events order by xid desc, id desc limit 1',
    )
  )[0]
  let lastEventId = `${first?.xid}-${first?.id}`
  const seen: SseMessage[] = []
  let done = false
  const reading = (async () => {
    while (!(done && seen.length >= WRITERS * EVENTS)) {
      const stream = await open('/events?types=client.event', lastEventId)
      const enough = seen.length + 50 + Math.floor(Math.random() * 1500)
      await until(
        () => seen.length + stream.messages.length >= Math.min(enough, WRITERS * EVENTS),
        'more events',
        60_000,
      )
      stream.close()
      await stream.ended
      seen.push(...stream.messages)
      lastEventId = stream.messages.at(-1)?.id ?? lastEventId
    }
  })()
  const began = performance.now()
  // Transactions of different lengths, some rolled back: they commit in another order than that of their ids.
  await Promise.all(
    Array.from({ length: WRITERS }, async (_, writer) => {
      const client = new pg.Client({ connectionString: server.database_.url })
      await client.connect()
      for (let number = 0; number < EVENTS; ) {
        const size = Math.min(1 + Math.floor(Math.random() * 20), EVENTS - number)
        await client.query('begin')
        for (let index = 0; index < size; index++) {
          await client.query("insert into events (type, data) values ('client.event', $1)", [
            JSON.stringify({ writer, number: number + index }),
          ])
        }
        const keep = Math.random() > 0.1
        await client.query(keep ? 'commit' : 'rollback')
        if (keep) number += size
      }
      await client.end()
    }),
  )
  const rate = (WRITERS * EVENTS) / ((performance.now() - began) / 1000)
  done = true
  await reading
  const keys = seen.map(({ data }) => `${data.data.writer} ${data.data.number}`)
  expect(new Set(keys).size).toBe(WRITERS * EVENTS)
  expect(keys).toHaveLength(WRITERS * EVENTS)
  console.log(`streamed ${keys.length} events of ${WRITERS} writers at ${Math.round(rate)} events/s`)
}, 90_000)

test('a stopping server ends its streams instead of waiting for them', async () => {
  const other = await startServer()
  const stream = await openStream(`${other.http}/api/events`, ADMIN_TOKEN)
  const began = performance.now()
  const stopped = other.stop()
  await stream.ended
  expect(performance.now() - began).toBeLessThan(5000)
  await stopped
})
