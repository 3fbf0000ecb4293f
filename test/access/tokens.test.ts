import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectProblem } from '../api/support.ts'
import { createTestDatabase } from '../support/database.ts'
import { connectDevice, type Device, ROOT } from '../support/device.ts'
import { openStream } from '../support/event-source.ts'
import { httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { client, fresh, principal, type TestPrincipal } from './support/principals.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer({ CREDENTIAL_CACHE_SECONDS: 600, HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000 })
  await client(server, 'c1')
})
afterAll(() => server.stop())

/** A further token of a principal that lives for so long. */
async function token(of: TestPrincipal, lifeMs: number): Promise<TestPrincipal> {
  const expiresAt = new Date(Date.now() + lifeMs).toISOString()
  const { body } = await server.api.post('/tokens', { principalId: of.id, name: 'short', expiresAt })
  return { ...of, token: body.token, tokenId: body.id, api: httpClient(server.http, body.token) }
}

async function watch(of: TestPrincipal, at: Pick<TestServer, 'mqttPort'> = server): Promise<Device> {
  const device = await connectDevice(at, { clientId: fresh('t'), username: of.name, password: of.token })
  expect(device.returnCode).toBe(0)
  expect(await device.subscribe(`${ROOT}/#`)).toEqual([1])
  return device
}

/** Everything long that a token can open. */
async function openAll(of: TestPrincipal) {
  const { id } = (await server.api.post('/commands', { clientId: 'c1', action: 'print' })).body
  const feed = await openStream(`${server.http}/api/events`, of.token)
  const follow = await openStream(`${server.http}/api/commands/${id}/stream`, of.token)
  const mqtt = await watch(of)
  const waiting = of.api.get(`/commands/${id}?wait=60`)
  return { ended: () => Promise.all([feed.ended, follow.ended, mqtt.whenClosed(), waiting]) }
}

describe('what a token opened ends at once', () => {
  test('when it is revoked', async () => {
    const who = await principal(server, 'viewer')
    const second = await token(who, 3_600_000)
    const opened = await openAll(second)
    const other = await watch(who)
    await server.api.send('DELETE', `/tokens/${second.tokenId}`)
    await opened.ended()
    expect((await second.api.get('/clients')).status).toBe(401)
    await other.ping()
    expect((await who.api.get('/clients')).status).toBe(200)
    await other.end()
  })

  test('when its principal is deleted', async () => {
    const who = await principal(server, 'technician')
    const opened = [await openAll(who), await openAll(await token(who, 3_600_000))]
    await server.api.send('DELETE', `/principals/${who.id}`)
    await Promise.all(opened.map(({ ended }) => ended()))
    expect((await who.api.get('/clients')).status).toBe(401)
  })

  test('when it expires, though it is remembered for longer', async () => {
    const who = await token(await principal(server, 'viewer'), 1500)
    const opened = await openAll(who)
    const began = performance.now()
    await opened.ended()
    expect(performance.now() - began).toBeLessThan(3000)
    expectProblem(await who.api.get('/clients'), 401, 'UNAUTHORIZED')
    const again = { clientId: fresh('t'), username: who.name, password: who.token }
    expect((await connectDevice(server, again)).returnCode).toBe(4)
  })
})

test('what another server revoked ends here within CREDENTIAL_CACHE_SECONDS', async () => {
  const database = await createTestDatabase()
  const here = await startServer({ CREDENTIAL_CACHE_SECONDS: 0.5 }, { database })
  const there = await startServer({}, { database })
  const who = await principal(there, 'viewer')
  const mqtt = await watch(who, here)
  const feed = await openStream(`${here.http}/api/events`, who.token)
  await there.api.send('DELETE', `/tokens/${who.tokenId}`)
  await Promise.all([mqtt.whenClosed(), feed.ended])
  await until(async () => (await httpClient(here.http, who.token).get('/clients')).status === 401, 'it is refused')
  await here.stop()
  await there.stop()
  await database.drop()
})

describe('the last use', () => {
  const lastUsed = async (tokenId: string): Promise<string | undefined> =>
    (await server.api.get('/tokens?limit=200')).body.items.find(({ id }: { id: string }) => id === tokenId).lastUsedAt

  test('is shown, over HTTP and MQTT, and written once a minute at most', async () => {
    const who = await principal(server, 'viewer')
    expect(await lastUsed(who.tokenId)).toBeUndefined()
    await who.api.get('/clients')
    const first = await until(() => lastUsed(who.tokenId), 'the first use')
    expect(Math.abs(Date.parse(first) - Date.now())).toBeLessThan(60_000)
    for (let use = 0; use < 20; use++) await who.api.get('/clients')
    await (await watch(who)).end()
    expect(await lastUsed(who.tokenId)).toBe(first)
    const second = await token(who, 3_600_000)
    await (await watch(second)).end()
    await until(() => lastUsed(second.tokenId), 'a login over MQTT')
  })

  test('is written again when TOKEN_LAST_USED_SECONDS are over', async () => {
    const often = await startServer({ TOKEN_LAST_USED_SECONDS: 0.2 })
    const read = async () => (await often.api.get('/tokens')).body.items[0].lastUsedAt
    const first = await until(read, 'the first use')
    await until(async () => (await read()) > first, 'a later use')
    await often.stop()
  })
})

test.each(['0000-01-01T00:00:00Z', '2030-01-01T00:00:00+16:00', 'tomorrow'])(
  'a token that expires at %s is told so, or is understood',
  async (expiresAt) => {
    const { id } = await principal(server, 'viewer')
    const answer = await server.api.post('/tokens', { principalId: id, name: 'x', expiresAt })
    if (expiresAt.includes('+16')) expect(answer.status).toBe(201)
    else expectProblem(answer, 400, 'INVALID_INPUT')
  },
)
