import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createOwnServer, createTestDatabase, type TestDatabase } from '../support/database.ts'
import { closeDatabase, type Network, reopenDatabase, startNetwork } from '../support/database-faults.ts'
import { startDevice } from '../support/device.ts'
import { type Http, httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { createPrincipal, expectProblem } from './support.ts'

const OUTAGE_SECONDS = 3

let database: TestDatabase
let network: Network
let server: TestServer
let nobody: Http

beforeAll(async () => {
  database = await createTestDatabase()
  network = await startNetwork(database)
  server = await startServer({ DATABASE_URL: network.url }, { database })
  nobody = httpClient(server.http, undefined)
})
afterAll(async () => {
  await server.stop()
  await network.stop()
  await database.drop()
})

const seconds = (since: number): number => (performance.now() - since) / 1000
const send = (server: TestServer, clientId: string, key?: string) =>
  server.api.post('/commands', { clientId, action: 'print' }, key ? { 'Idempotency-Key': key } : {})
const commandsOf = async (database: TestDatabase, clientId: string): Promise<number> =>
  (await database.query('select 1 from executions where client_id = $1', [clientId])).length

test('while all is well, each question is answered with 200', async () => {
  expect(await nobody.get('/health')).toMatchObject({
    status: 200,
    body: {
      ok: true,
      degraded: false,
      checks: {
        database: { ok: true, milliseconds: expect.any(Number) },
        feed: { ok: true, lagSeconds: expect.any(Number), degraded: false },
      },
      at: expect.any(String),
    },
  })
  expect(await nobody.get('/health/live')).toMatchObject({ status: 200, body: { ok: true } })
  expect(await nobody.get('/health/ready')).toMatchObject({ status: 200, body: { ok: true } })
})

describe('while the database is out of reach', () => {
  let device: Awaited<ReturnType<typeof startDevice>>
  const key = randomUUID()

  beforeAll(async () => {
    device = await startDevice(server, 'c1')
    await server.api.get('/clients/c1')
    network.cut()
  })

  test('the server is alive and not ready, and says which dependency is missing, not where it is', async () => {
    expect(await nobody.get('/health/live')).toMatchObject({ status: 200, body: { ok: true } })
    expect(await nobody.get('/health/ready')).toMatchObject({ status: 503, body: { ok: false } })
    const health = await nobody.get('/health')
    expect(health).toMatchObject({ status: 503, body: { ok: false, checks: { database: { ok: false } } } })
    const { hostname, port, pathname, username } = new URL(network.url)
    for (const secret of [hostname, port, pathname.slice(1), username]) {
      expect(JSON.stringify(health.body.checks)).not.toContain(secret)
    }
  })

  test('a command is UNAVAILABLE at once, in words that do not say more', async () => {
    const start = performance.now()
    const answer = await send(server, 'c1', key)
    expectProblem(answer, 503, 'UNAVAILABLE')
    expect(seconds(start)).toBeLessThan(OUTAGE_SECONDS)
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    expect(answer.body.detail).toContain('Idempotency-Key')
    expect(JSON.stringify(answer.body)).not.toContain(new URL(database.url).pathname.slice(1))
  })

  test('so is everything else', async () => {
    for (const [method, path, body] of [
      ['GET', '/commands'],
      ['GET', '/clients/c1'],
      ['GET', '/clients/c1/queue'],
      ['POST', '/clients', { id: 'c9' }],
      ['PATCH', '/clients/c1', { name: 'x' }],
      ['DELETE', '/clients/c1'],
      ['PUT', '/actions/a', {}],
      ['GET', '/commands/0198c0de-0000-7000-8000-000000000000?wait=5'],
    ] as const) {
      const start = performance.now()
      expectProblem(await server.api.send(method, path, body), 503, 'UNAVAILABLE')
      expect(seconds(start)).toBeLessThan(OUTAGE_SECONDS)
    }
  })

  test('a token that nobody has asked for lately is UNAVAILABLE, not UNAUTHORIZED', async () => {
    expectProblem(await httpClient(server.http, `sbt_${randomUUID()}`).get('/commands'), 503, 'UNAVAILABLE')
  })

  test('what is no request of ours is still told so', async () => {
    expectProblem(await server.api.get('/nothing'), 404, 'NOT_FOUND')
    expectProblem(await nobody.get('/commands'), 401, 'UNAUTHORIZED')
    expectProblem(await server.api.post('/commands', { nonsense: 1 }), 400, 'INVALID_INPUT')
  })

  test('when it is back, all works again, and the repeated command is one command', async () => {
    network.mend()
    await until(async () => (await nobody.get('/health/ready')).status === 200, 'ready again')
    expect(await commandsOf(database, 'c1')).toBe(0)
    const answer = await send(server, 'c1', key)
    expect(answer.status).toBe(201)
    const { payload } = await device.nextCommand()
    expect(payload.id).toBe(answer.body.id)
    expect(device.closed).toBe(false)
    await device.end()
  })

  test('the server counts none of this as an error of its own', () => {
    expect(server.logs.filter((line) => (line.level as number) >= 50)).toEqual([])
  })
})

describe('while the database is there and lets nobody in', () => {
  beforeAll(() => closeDatabase(database))
  afterAll(async () => {
    await reopenDatabase(database)
    await until(async () => (await nobody.get('/health/ready')).status === 200, 'ready again')
  })

  test('the server is not ready', async () => {
    expect((await nobody.get('/health/ready')).status).toBe(503)
  })

  // Open: db/connect.ts, isDatabaseDown: a FATAL error of the log-in (55000, 3D000, 28xxx) means down, too.
  test('a command is UNAVAILABLE', async () => {
    expectProblem(await send(server, 'c1'), 503, 'UNAVAILABLE')
  })
})

describe('while the database hears nothing', () => {
  let slowDatabase: TestDatabase
  let slowNetwork: Network
  let slow: TestServer

  beforeAll(async () => {
    slowDatabase = await createTestDatabase()
    slowNetwork = await startNetwork(slowDatabase)
    slow = await startServer(
      { DATABASE_URL: slowNetwork.url, DATABASE_TIMEOUT_SECONDS: 1, SWEEP_INTERVAL_SECONDS: 1 },
      { database: slowDatabase },
    )
    await slow.api.post('/clients', { id: 'c1' })
  })
  afterAll(async () => {
    await slow.stop()
    await slowNetwork.stop()
    await slowDatabase.drop()
  })

  test('a request is UNAVAILABLE after DATABASE_TIMEOUT_SECONDS, not confirmed, and safe to repeat', async () => {
    const token = await createPrincipal(slow, 'admin', 'other')
    const keys = Array.from({ length: 5 }, () => randomUUID())
    slowNetwork.freeze()
    const start = performance.now()
    for (const answer of await Promise.all(keys.map((key) => send(slow, 'c1', key)))) {
      expectProblem(answer, 503, 'UNAVAILABLE')
    }
    expect(seconds(start)).toBeGreaterThan(0.9)
    expect(seconds(start)).toBeLessThan(OUTAGE_SECONDS * 2)
    expect((await httpClient(slow.http, undefined).get('/health/ready')).status).toBe(503)
    expect((await httpClient(slow.http, undefined).get('/health/live')).status).toBe(200)
    expectProblem(await httpClient(slow.http, token).get('/commands'), 503, 'UNAVAILABLE')
    slowNetwork.thaw()
    await until(async () => (await httpClient(slow.http, undefined).get('/health/ready')).status === 200, 'ready again')
    const answers = await until(async () => {
      const again = await Promise.all(keys.map((key) => send(slow, 'c1', key)))
      return again.every(({ status }) => status !== 503) ? again : undefined
    }, 'an answer to each')
    for (const { status } of answers) expect([200, 201]).toContain(status)
    expect(new Set(answers.map((answer) => answer.body.id)).size).toBe(5)
    expect(await commandsOf(slowDatabase, 'c1')).toBe(5)
  })
})

describe('while a transaction is open on the database server', () => {
  let own: TestDatabase
  let held: TestServer

  beforeAll(async () => {
    own = await createOwnServer()
    held = await startServer({ ALERT_FEED_LAG_SECONDS: 0.3 }, { database: own })
    await held.api.post('/clients', { id: 'c1' })
  })
  afterAll(async () => {
    await held.stop()
    await own.drop()
  })

  const health = async () => (await httpClient(held.http, undefined).get('/health')).body
  const metric = async (name: string): Promise<number> => {
    const text = await (await fetch(new URL('/metrics', held.http))).text()
    return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1])
  }

  test('the feed shows its lag; above the threshold it is degraded, and the server is as ready as before', async () => {
    await until(async () => (await health()).checks.feed.lagSeconds === 0, 'nothing is held back')
    const writer = new pg.Client({ connectionString: own.url })
    await writer.connect()
    await writer.query('begin')
    await writer.query('select pg_current_xact_id()')
    const { checks: before } = await health()
    expect(before.feed).toMatchObject({ ok: true, lagSeconds: 0, degraded: false })
    await send(held, 'c1')
    const since = performance.now()
    const body = await until(async () => {
      const answer = await health()
      return answer.degraded ? answer : undefined
    }, 'degraded')
    expect(body).toMatchObject({ ok: true, checks: { database: { ok: true }, feed: { ok: true, degraded: true } } })
    expect(body.checks.feed.lagSeconds).toBeGreaterThan(0.3)
    expect(body.checks.feed.lagSeconds).toBeLessThan(seconds(since) + 1)
    expect(await metric('signalbox_feed_lag_seconds')).toBeGreaterThan(0.3)
    expect((await httpClient(held.http, undefined).get('/health/ready')).status).toBe(200)
    await writer.query('rollback')
    await writer.end()
    await until(async () => (await health()).checks.feed.lagSeconds === 0, 'nothing is held back')
    expect(await health()).toMatchObject({ ok: true, degraded: false })
  })

  test('one that only reads holds nothing back', async () => {
    const reader = new pg.Client({ connectionString: own.url })
    await reader.connect()
    await reader.query('begin isolation level repeatable read')
    await reader.query('select count(*) from events')
    await send(held, 'c1')
    await until(async () => (await health()).checks.feed.lagSeconds === 0, 'nothing is held back')
    await reader.end()
  })
})
