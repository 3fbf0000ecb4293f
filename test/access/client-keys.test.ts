import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectProblem } from '../api/support.ts'
import { connectDevice, startDevice } from '../support/device.ts'
import { openStream } from '../support/event-source.ts'
import { httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { client, fresh } from './support/principals.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer({ CREDENTIAL_CACHE_SECONDS: 0.5, HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000 })
})
afterAll(() => server.stop())

const rotate = async (id: string, body?: object): Promise<string> =>
  (await server.api.post(`/clients/${id}/rotate-key`, body)).body.clientKey
const returnCode = async (clientId: string, password: string): Promise<number> => {
  const device = await connectDevice(server, { clientId, password })
  if (device.returnCode === 0) await device.end()
  return device.returnCode
}
const pings = async (id: string, key: string): Promise<number> =>
  (await httpClient(server.http, key).post(`/clients/${id}/ping`)).status
const reporter = (id: string, password: string) =>
  connectDevice(server, { clientId: `${id}~${fresh('r')}`, username: id, password })

describe('a rotation with a grace', () => {
  test('lets both keys work, at both doors, and disturbs nobody', async () => {
    const id = fresh('device')
    const device = await startDevice(server, id)
    const next = await rotate(id, { graceSeconds: 600 })
    await device.ping()
    expect(await pings(id, device.clientKey)).toBe(204)
    expect(await pings(id, next)).toBe(204)
    await device.end()
    expect(await returnCode(id, device.clientKey)).toBe(0)
    expect(await returnCode(id, next)).toBe(0)
  })

  test('ends with it: what came with the old key is closed, what came with the new one stays', async () => {
    const id = fresh('device')
    const before = await startDevice(server, id)
    const old = before.clientKey
    const oldReporter = await reporter(id, old)
    const next = await rotate(id, { graceSeconds: 2 })
    const lateReporter = await reporter(id, old)
    const newReporter = await reporter(id, next)
    expect([lateReporter, newReporter].map(({ returnCode }) => returnCode)).toEqual([0, 0])
    await Promise.all([before, oldReporter, lateReporter].map((device) => device.whenClosed()))
    expect(await returnCode(id, old)).toBe(4)
    expect(await pings(id, old)).toBe(401)
    await newReporter.ping()
    expect(await returnCode(id, next)).toBe(0)
    await newReporter.end()
  })

  test('ends for a stream, too', async () => {
    const [a, b] = [fresh('http'), fresh('http')]
    const [keyA, keyB] = [await client(server, a), await client(server, b)]
    const openedWith = async (id: string, key: string) => openStream(`${server.http}/api/events/${id}`, key)
    const old = await openedWith(a, keyA)
    await rotate(a, { graceSeconds: 1 })
    const next = await rotate(b, { graceSeconds: 1 })
    const renewed = await openedWith(b, next)
    await old.ended
    await until(async () => (await pings(b, keyB)) === 401, 'the grace of the other is over')
    // As many looks at ended keys as it takes for the first one.
    expect(await Promise.race([renewed.ended.then(() => 'ended'), pings(b, next)])).toBe(204)
    renewed.close()
  })

  test('is over at once for a key that was rotated twice', async () => {
    const id = fresh('device')
    const first = await client(server, id)
    const second = await rotate(id, { graceSeconds: 600 })
    const third = await rotate(id, { graceSeconds: 600 })
    expect(await returnCode(id, first)).toBe(4)
    expect(await returnCode(id, second)).toBe(0)
    expect(await returnCode(id, third)).toBe(0)
  })

  test('is over at once when a rotation without a grace follows, a disable or a deletion', async () => {
    for (const end of ['rotate-key', 'disable', 'delete']) {
      const id = fresh('device')
      const old = await client(server, id)
      const next = await rotate(id, { graceSeconds: 600 })
      const live = [await reporter(id, old), await reporter(id, next)]
      if (end === 'delete') await server.api.send('DELETE', `/clients/${id}`)
      else await server.api.post(`/clients/${id}/${end}`)
      await Promise.all(live.map((device) => device.whenClosed()))
      for (const key of [old, next]) expect(await returnCode(id, key), end).toBe(end === 'disable' ? 5 : 4)
    }
  })

  test.each([[{ graceSeconds: -1 }], [{ graceSeconds: 1.5 }], [{ graceSeconds: '5' }], [{ grace: 5 }], [[]]])(
    'with %j is INVALID_INPUT, and the old key works on',
    async (body) => {
      const id = fresh('device')
      const key = await client(server, id)
      expectProblem(await server.api.post(`/clients/${id}/rotate-key`, body), 400, 'INVALID_INPUT')
      expect(await returnCode(id, key)).toBe(0)
    },
  )
})

test("a deleted client's id may be used again, and its old key is nobody's", async () => {
  const id = fresh('device')
  const first = await client(server, id)
  await server.api.send('DELETE', `/clients/${id}`)
  const second = await client(server, id)
  expect(await returnCode(id, first)).toBe(4)
  expect(await pings(id, first)).toBe(401)
  expect(await returnCode(id, second)).toBe(0)
})

test('no key is in a log line, an event, an audit row, a security event or an error', async () => {
  const id = fresh('device')
  const keys = [await client(server, id), await rotate(id, { graceSeconds: 60 }), await rotate(id)]
  const answers: unknown[] = []
  for (const key of keys) {
    await connectDevice(server, { clientId: key.slice(0, 60), username: id, password: key })
    await connectDevice(server, { clientId: id, username: id, password: key })
    await connectDevice(server, { clientId: id, username: 'another', password: key })
    answers.push((await httpClient(server.http, key).get('/clients')).body)
    answers.push((await httpClient(server.http, key).get('/events/another')).body)
    answers.push((await httpClient(server.http, `${key}x`).post(`/clients/${id}/ping`)).body)
  }
  await until(
    async () =>
      (await server.sql(`select 1 from security_events where subject = $1 and kind = 'revoked_key'`, [id])).length,
    'the security events',
  )
  const tables = await Promise.all(
    ['events', 'audit', 'security_events'].map((table) => server.sql(`select * from ${table}`)),
  )
  const everything = JSON.stringify([answers, tables, server.logs])
  for (const key of keys) expect(everything.includes(key.slice(4, 40))).toBe(false)
})
