import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createSecurityLog } from '../../control/access/security-log.ts'
import { createRegistry } from '../../control/metrics/registry.ts'
import { connectDatabase } from '../../db/connect.ts'
import type { SecurityEvent } from '../../schemas/security-events.ts'
import { createTestDatabase } from '../support/database.ts'
import { closeDatabase, reopenDatabase } from '../support/database-faults.ts'
import { connectDevice, ROOT } from '../support/device.ts'
import { httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { silent } from '../support/silent-log.ts'
import { until } from '../support/until.ts'
import { client, fresh, grant, principal } from './support/principals.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000, CREDENTIAL_CACHE_SECONDS: 0.1 })
})
afterAll(() => server.stop())

const WRONG_KEY = `sbk_${'x'.repeat(43)}`
const WRONG_TOKEN = `sbt_${'x'.repeat(43)}`
const http = (token: string | undefined) => httpClient(server.http, token)

/** The events about a subject, once this kind is among them. */
const seen = (subject: string, kind: string): Promise<SecurityEvent> =>
  until(async () => {
    const { items } = (await server.api.get(`/security-events?subject=${subject}&kind=${kind}`)).body
    return items[0] as SecurityEvent | undefined
  }, `${kind} of ${subject}`)

describe('is noticed', () => {
  test('a wrong key over MQTT: of a client that exists under its id, of any other under the address', async () => {
    const id = fresh('device')
    await client(server, id)
    await connectDevice(server, { clientId: id, password: WRONG_KEY })
    expect(await seen(id, 'bad_key')).toMatchObject({
      severity: 'warning',
      clientId: id,
      address: '127.0.0.1',
      detail: `not the key of client ${id}`,
    })
    await connectDevice(server, { clientId: 'invented', password: WRONG_KEY })
    await until(async () => (await seen('127.0.0.1', 'bad_key')).detail.includes('invented'), 'the address')
  })

  test('a wrong token and a wrong key over HTTP', async () => {
    expect((await http(WRONG_TOKEN).get('/clients')).status).toBe(401)
    await until(async () => (await seen('127.0.0.1', 'bad_key')).detail === 'a token that is none', 'the token')
    expect((await http(WRONG_KEY).post('/clients/x/ping')).status).toBe(401)
    await until(async () => (await seen('127.0.0.1', 'bad_key')).detail === 'a client key that is none', 'the key')
    const id = fresh('device')
    expect((await http(await client(server, id)).get('/clients')).status).toBe(401)
    await until(
      async () => (await seen('127.0.0.1', 'bad_key')).detail === 'no API token at GET /api/clients',
      'the form',
    )
  })

  test('a token under the name of another principal', async () => {
    const viewer = await principal(server, 'viewer')
    const connect = { clientId: fresh('t'), username: 'admin', password: viewer.token }
    expect((await connectDevice(server, connect)).returnCode).toBe(4)
    expect(await seen(viewer.name, 'bad_key')).toMatchObject({ principal: viewer.name })
  })

  test('a token that was revoked, whose principal was deleted, or that has expired', async () => {
    const revoked = await principal(server, 'viewer')
    await server.api.send('DELETE', `/tokens/${revoked.tokenId}`)
    const deleted = await principal(server, 'viewer')
    await server.api.send('DELETE', `/principals/${deleted.id}`)
    for (const { token, name } of [revoked, deleted]) {
      expect((await http(token).get('/clients')).status).toBe(401)
      expect(await seen(name, 'revoked_key')).toMatchObject({ severity: 'critical', principal: name })
    }
    const expired = await principal(server, 'viewer')
    await server.sql(`update tokens set expires_at = clock_timestamp() where id = $1`, [expired.tokenId])
    expect((await http(expired.token).get('/clients')).status).toBe(401)
    expect(await seen(expired.name, 'expired_key')).toMatchObject({ severity: 'warning' })
  })

  test('a client key that was rotated away, and one of a deleted client, at either door', async () => {
    for (const [end, why] of [
      [(id: string) => server.api.post(`/clients/${id}/rotate-key`), 'the key was rotated away'],
      [(id: string) => server.api.send('DELETE', `/clients/${id}`), 'the client was deleted'],
    ] as const) {
      for (const door of ['mqtt', 'http']) {
        const id = fresh('device')
        const key = await client(server, id)
        await end(id)
        if (door === 'mqtt') expect((await connectDevice(server, { clientId: id, password: key })).returnCode).toBe(4)
        else expect((await http(key).post(`/clients/${id}/ping`)).status).toBe(401)
        expect(await seen(id, 'revoked_key')).toMatchObject({ severity: 'critical', clientId: id })
        expect((await seen(id, 'revoked_key')).detail).toContain(why)
      }
    }
  })

  test("a foreign client id: another client's, and a client's with a token", async () => {
    const [mine, theirs] = [fresh('device'), fresh('device')]
    const key = await client(server, mine)
    await client(server, theirs)
    expect((await connectDevice(server, { clientId: theirs, username: mine, password: key })).returnCode).toBe(5)
    expect(await seen(mine, 'foreign_client_id')).toMatchObject({ clientId: mine, detail: `connected as ${theirs}` })
    const viewer = await principal(server, 'viewer')
    const connect = { clientId: theirs, username: viewer.name, password: viewer.token }
    expect((await connectDevice(server, connect)).returnCode).toBe(5)
    expect(await seen(viewer.name, 'foreign_client_id')).toMatchObject({ principal: viewer.name })
  })

  test('a publish and a will on a forbidden topic', async () => {
    const id = fresh('device')
    const key = await client(server, id)
    const device = await connectDevice(server, { clientId: id, password: key })
    await device.publish(`${ROOT}/clients/other/status`, {}).catch(() => undefined)
    expect((await seen(id, 'forbidden_topic')).detail).toContain("clients/other/status: it is another client's")
    const will = { topic: `${ROOT}/broadcast/commands`, payload: Buffer.from('{}') }
    expect((await connectDevice(server, { clientId: id, password: key, will })).returnCode).toBe(5)
    await until(async () => (await seen(id, 'forbidden_topic')).detail.startsWith('will on'), 'the will')
    const viewer = await principal(server, 'viewer')
    const watcher = await connectDevice(server, {
      clientId: fresh('t'),
      username: viewer.name,
      password: viewer.token,
    })
    await watcher.publish(`${ROOT}/clients/${id}/commands`, {}).catch(() => undefined)
    expect(await seen(viewer.name, 'forbidden_topic')).toMatchObject({ principal: viewer.name })
  })

  test('what the role or a grant does not allow, and a foreign stream', async () => {
    const viewer = await principal(server, 'viewer')
    await viewer.api.send('DELETE', '/clients/c1')
    expect((await seen(viewer.name, 'forbidden_action')).detail).toContain('DELETE /api/clients/c1: Role viewer')
    const operator = await principal(server, 'operator')
    await operator.api.post('/commands', { broadcast: true, action: 'print' })
    expect((await seen(operator.name, 'forbidden_action')).detail).toContain('POST /api/commands: No grant')
    const id = fresh('device')
    await http(await client(server, id)).get('/events/another')
    expect(await seen(id, 'forbidden_action')).toMatchObject({ clientId: id })
  })

  test('more than 150 % of a limit, and not a command less', async () => {
    const id = fresh('device')
    await client(server, id)
    const command = { clientId: id, action: 'print' }
    for (const [limits, what] of [
      [{ maxCommandsPerDay: 4 }, 'per day'],
      [{ commandsPerMinute: 4 }, 'per minute'],
    ] as const) {
      const who = await principal(server, 'operator', [grant('*', limits)])
      for (let asked = 1; asked <= 6; asked++) await who.api.post('/commands', command)
      // Six are 150 %. What is noticed after them is stored after them, too.
      await who.api.send('DELETE', `/clients/${id}`)
      await seen(who.name, 'forbidden_action')
      expect((await server.api.get(`/security-events?subject=${who.name}&kind=over_quota`)).body.items).toEqual([])
      await who.api.post('/commands', command)
      expect((await seen(who.name, 'over_quota')).detail).toBe(`asked for 7 commands ${what}, 4 are allowed`)
    }
  })
})

test('a flood is one row per kind, subject and minute, with a count', async () => {
  const flooded = await startServer()
  const attack = async (): Promise<void> => {
    for (let index = 0; index < 50; index++) await httpClient(flooded.http, WRONG_TOKEN).get('/clients')
  }
  await Promise.all(Array.from({ length: 6 }, attack))
  const rows = () => flooded.sql<{ count: number; minute: Date }>('select count::int, minute from security_events')
  await until(async () => (await rows()).reduce((sum, { count }) => sum + count, 0) === 300, '300 are counted')
  const minutes = (await rows()).map(({ minute }) => minute.getTime())
  expect(new Set(minutes).size).toBe(minutes.length)
  expect(minutes.length).toBeLessThanOrEqual(2)
  await flooded.stop()
})

test('is filtered, and read page by page, newest first', async () => {
  const ids = ['p1', 'p2', 'p3'].map(fresh)
  const since = new Date().toISOString()
  for (const id of ids) {
    await client(server, id)
    await connectDevice(server, { clientId: id, password: WRONG_KEY })
    await seen(id, 'bad_key')
  }
  const read = async (query: string) => (await server.api.get(`/security-events?${query}`)).body
  const found = (await read(`since=${since}&kind=bad_key`)).items.map(({ subject }: SecurityEvent) => subject)
  expect(found.filter((subject: string) => ids.includes(subject))).toEqual([...ids].reverse())
  expect((await read(`until=${since}&subject=${ids[0]}`)).items).toEqual([])
  expect((await read(`severity=critical&subject=${ids[0]}`)).items).toEqual([])
  const page = await read('limit=1')
  expect(page.items).toHaveLength(1)
  expect((await read(`limit=1&cursor=${page.nextCursor}`)).items[0].id).not.toBe(page.items[0].id)
  expect((await server.api.get('/security-events?kind=nothing')).status).toBe(400)
})

describe('the log itself', () => {
  const open = (url: string) =>
    connectDatabase({ connection: url, poolSize: 4, timeoutSeconds: 2, onIdleError: () => undefined })

  test('never throws on what an attacker sends, and keeps no secret', async () => {
    const database = await createTestDatabase()
    const db = open(database.url)
    const log = createSecurityLog({ db, log: silent, metrics: createRegistry(), subjectsPerMinute: 10, backlog: 1000 })
    const detail = `topic \u0000\u001b[2J sbk_${'k'.repeat(43)} SBT_${'t'.repeat(43)} \ud800 ${'\u{1f600}'.repeat(400)}`
    log.note({ kind: 'forbidden_topic', subject: `sbk_${'k'.repeat(43)}\u0000`, detail })
    await log.stop()
    const [row] = await database.query('select subject, detail from security_events')
    expect(row?.subject).toBe('sbk_…?')
    expect(row?.detail).toMatch(/^topic \?\?\[2J sbk_… SBT_… /)
    expect(JSON.stringify(row)).not.toMatch(/k{3}|t{3}/)
    await db.destroy()
    await database.drop()
  })

  test('tells only so many subjects apart, and counts the others together', async () => {
    const database = await createTestDatabase()
    const db = open(database.url)
    const log = createSecurityLog({ db, log: silent, metrics: createRegistry(), subjectsPerMinute: 10, backlog: 1000 })
    for (let index = 0; index < 5000; index++) log.note({ kind: 'bad_key', subject: `name-${index}`, detail: 'x' })
    log.note({ kind: 'bad_key', subject: 'name-3', detail: 'x' })
    log.note({ kind: 'over_quota', subject: 'another kind', detail: 'x' })
    await log.stop()
    expect(
      await database.query(
        `select kind, subject, count::int from security_events where subject in ('*', 'name-3') or kind = 'over_quota' order by subject`,
      ),
    ).toEqual([
      { kind: 'bad_key', subject: '*', count: 4990 },
      { kind: 'over_quota', subject: 'another kind', count: 1 },
      { kind: 'bad_key', subject: 'name-3', count: 2 },
    ])
    expect(await database.query('select count(*)::int as n from security_events')).toEqual([{ n: 12 }])
    await db.destroy()
    await database.drop()
  })

  test('keeps a bounded number while the database is down, counts what it drops, and stores the rest when it is back', async () => {
    const database = await createTestDatabase()
    const db = open(database.url)
    const log = createSecurityLog({
      db,
      log: silent,
      metrics: createRegistry(),
      subjectsPerMinute: 10_000,
      backlog: 1000,
    })
    await closeDatabase(database)
    for (let index = 0; index < 1500; index++) log.note({ kind: 'bad_key', subject: `name-${index}`, detail: 'x' })
    log.note({ kind: 'bad_key', subject: 'name-0', detail: 'x' })
    expect(log.dropped()).toBe(500)
    await log.stop()
    await reopenDatabase(database)
    await log.stop()
    expect(log.dropped()).toBe(500)
    expect(await database.query('select count(*)::int as n, sum(count)::int as of from security_events')).toEqual([
      { n: 1000, of: 1001 },
    ])
    await db.destroy()
    await database.drop()
  })
})

test('what is old is forgotten', async () => {
  const brief = await startServer({ SECURITY_EVENT_KEEP_SECONDS: 1, SWEEP_INTERVAL_SECONDS: 0.01 })
  expect((await httpClient(brief.http, WRONG_TOKEN).get('/clients')).status).toBe(401)
  const count = async () => (await brief.sql<{ n: number }>('select count(*)::int as n from security_events'))[0]?.n
  await until(async () => (await count()) === 1, 'it is stored')
  await until(async () => (await count()) === 0, 'it is forgotten')
  await brief.stop()
})
