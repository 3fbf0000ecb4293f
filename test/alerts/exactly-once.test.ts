import { isDeepStrictEqual } from 'node:util'
import type { Kysely } from 'kysely'
import pg from 'pg'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { connectDatabase } from '../../db/connect.ts'
import { up as upAlerts } from '../../db/migrations/0003-alerts.ts'
import { up as upSecurity } from '../../db/migrations/0008-severe-security-events.ts'
import type { Alert } from '../../schemas/alerts.ts'
import { createOwnServer, type TestDatabase } from '../support/database.ts'
import { connectDevice } from '../support/device.ts'
import { type Http, httpClient } from '../support/http.ts'
import { startServer } from '../support/server.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'
import { alertsOf, untilLookedAt, untilOpen } from './support.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

let database: TestDatabase
let servers: ServerProcess[] = []

beforeEach(async () => {
  database = await createOwnServer()
})
afterEach(async () => {
  await Promise.all(servers.map((server) => server.kill()))
  servers = []
  await database.drop()
})

/** `look`: whether it looks for alerts, or is killed before it comes to that. */
async function start(look: boolean): Promise<ServerProcess & { sql: TestDatabase['query'] }> {
  const server = await startServerProcess(database, { settings: { SWEEP_INTERVAL_SECONDS: look ? 0.01 : 3600 } })
  servers.push(server)
  return { ...server, sql: database.query }
}

async function register(api: Http, id: string): Promise<string> {
  return (await api.post('/clients', { id })).body.clientKey
}

/** A client without a session says of a new command how it ended. */
async function report(
  server: { api: Http; url: string },
  clientId: string,
  key: string,
  status: string,
): Promise<string> {
  const { body } = await server.api.post('/commands', { clientId, action: 'print' })
  const said = await httpClient(server.url, key).send('PUT', `/commands/${body.id}/status`, { status, attempt: 1 })
  if (said.status !== 200) throw new Error(JSON.stringify(said.body))
  return body.id
}

async function upgrade(up: (db: Kysely<unknown>) => Promise<void>): Promise<void> {
  const options = { poolSize: 4, timeoutSeconds: 10, onIdleError: () => undefined }
  const db = connectDatabase({ connection: database.url, ...options })
  await up(db as Kysely<unknown>)
  await db.destroy()
}

const openings = async (): Promise<number> =>
  (await database.query("select 1 from events where type = 'alert.opened'")).length

test('killed with -9 between the events and the alerts: none is lost, none is opened twice', async () => {
  const first = await start(false)
  const key = await register(first.api, 'k1')
  const unknown = await report(first, 'k1', key, 'outcome_unknown')
  for (let n = 0; n < 5; n++) await report(first, 'k1', key, 'failed')
  await first.kill()
  expect(await database.query('select 1 from alerts')).toEqual([])

  const second = await start(true)
  await untilOpen(second, 'outcome_unknown', unknown)
  await untilOpen(second, 'command_failed', 'k1', ({ count }) => count === 5)
  await second.kill()
  const third = await start(true)
  await untilLookedAt(third)
  expect((await alertsOf(third, 'state=all')).map(({ kind, count }) => `${kind} ${count}`).sort()).toEqual([
    'command_failed 5',
    'outcome_unknown 1',
  ])
  expect(await openings()).toBe(2)
})

test('killed with -9 while the alerts are being stored, and stored without it: they count once', async () => {
  const first = await start(false)
  const key = await register(first.api, 'k1')
  for (let n = 0; n < 3; n++) await report(first, 'k1', key, 'failed')
  await first.kill()
  const holder = new pg.Client({ connectionString: database.url })
  await holder.connect()
  await holder.query('begin')
  // A lock without a transaction id: it does not hold the feed back.
  await holder.query('lock table feed_cursors in exclusive mode')
  const second = await start(true)
  await until(
    async () =>
      (
        await database.query(
          // What it says about the cursor is beyond what pg_stat_activity shows of a statement; nothing else waits for a lock.
          "select 1 from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'signalbox' and datname = current_database()",
        )
      ).length > 0,
    'the statement waits for the cursor',
  )
  await second.kill()
  await holder.query('commit')
  await holder.end()
  await until(async () => (await database.query('select 1 from alerts')).length > 0, 'PostgreSQL has stored them')
  const third = await start(true)
  await untilOpen(third, 'command_failed', 'k1', ({ count }) => count === 3)
  await untilLookedAt(third)
  expect(await alertsOf(third, 'state=all')).toMatchObject([{ count: 3 }])
  expect(await openings()).toBe(1)
})

test('killed with -9 again and again while commands fail: every failure is counted, and counted once', async () => {
  const KILLS = 5
  let key: string | undefined
  for (let round = 0; round < KILLS; round++) {
    const server = await start(true)
    key ??= await register(server.api, 'k1')
    const killAfter = 20 + Math.floor(Math.random() * 40)
    let done = 0
    // Each goes on until the server is gone; what it was told of its last report does not matter here.
    const reporting = Array.from({ length: 4 }, async () => {
      for (let alive = true; alive; done++) {
        alive = await report(server, 'k1', key as string, 'failed').then(
          () => true,
          () => false,
        )
      }
    })
    await until(() => done >= killAfter, 'some have failed')
    await server.kill()
    await Promise.all(reporting)
  }
  const last = await start(true)
  await untilLookedAt(last)
  const [failed] = await database.query<{ n: number }>(
    "select count(*)::int as n from events where type = 'execution.failed'",
  )
  const alerts = await alertsOf(last, 'state=all')
  expect(alerts).toMatchObject([{ kind: 'command_failed', subject: 'k1', count: failed?.n }])
  expect(await openings()).toBe(1)
  console.log(`${failed?.n} failures over ${KILLS} kills: ${alerts[0]?.count} counted`)
})

test('killed with -9 between a severe security event and its alert: it is told once, whoever looks', async () => {
  const first = await start(false)
  const old = await register(first.api, 'k1')
  await first.api.post('/clients/k1/rotate-key')
  const wrong = httpClient(first.url, old)
  for (let n = 0; n < 3; n++) expect((await wrong.post('/clients/k1/ping')).status).toBe(401)
  const stored = async () =>
    (await database.query<{ n: number }>('select sum(count)::int as n from security_events'))[0]?.n
  await until(async () => (await stored()) === 3, 'the events are stored')
  await first.kill()
  expect(await database.query('select 1 from alerts')).toEqual([])

  const settings = { SWEEP_INTERVAL_SECONDS: 0.01 }
  const nodes = [await startServer(settings, { database }), await startServer(settings, { database })] as const
  await untilOpen(nodes[0], 'security_event', 'revoked_key:k1', ({ count }) => count === 3)
  await Promise.all(
    nodes.map(async ({ http }) => {
      for (let n = 0; n < 50; n++) await httpClient(http, old).post('/clients/k1/ping')
    }),
  )
  await until(async () => (await stored()) === 103, 'all events are stored')
  await untilOpen(nodes[1], 'security_event', 'revoked_key:k1', ({ count }) => count >= 103)
  await untilLookedAt(nodes[0])
  expect(await alertsOf(nodes[0], 'state=all')).toMatchObject([{ subject: 'revoked_key:k1', count: 103 }])
  expect(await openings()).toBe(1)
  for (const node of nodes) {
    expect(node.logs.filter(({ msg }) => /^(look for alerts|security events)/.test(String(msg)))).toEqual([])
    await node.stop()
  }
})

test('two nodes look at one database at once: each alert is opened once, and everything is counted once', async () => {
  const settings = { SWEEP_INTERVAL_SECONDS: 0.01 }
  const nodes = [await startServer(settings, { database }), await startServer(settings, { database })] as const
  const clients = Array.from({ length: 20 }, (_, index) => `n${index}`)
  const keys = await Promise.all(clients.map((id) => register(nodes[0].api, id)))
  await Promise.all(
    nodes.map(async (node) => {
      for (let round = 0; round < 5; round++) {
        await Promise.all(
          clients.map(async (id, index) => {
            await report({ api: node.api, url: node.http }, id, keys[index] as string, 'failed')
            await connectDevice(node, { clientId: id, password: 'sbk_wrong' }).then((device) => device.drop())
          }),
        )
      }
    }),
  )
  const counted = async (kind: string) =>
    (await alertsOf(nodes[1], `kind=${kind}&state=all`)).map(({ subject, count }) => `${subject} ${count}`).sort()
  const expected = clients.map((id) => `${id} 10`).sort()
  // Each node stores the refusals of its own doors, with its own next look.
  await until(async () => isDeepStrictEqual(await counted('client_refused'), expected), 'all refusals are counted')
  await untilLookedAt(nodes[0])
  for (const kind of ['command_failed', 'client_refused']) expect(await counted(kind)).toEqual(expected)
  expect(await openings()).toBe(2 * clients.length)
  for (const node of nodes) {
    expect(node.logs.filter(({ msg }) => /^look for alerts/.test(String(msg)))).toEqual([])
    await node.stop()
  }
})

test('acknowledged in the middle of it: every failure is counted in one alert or in the next', async () => {
  const FAILURES = 150
  const server = await startServer({ SWEEP_INTERVAL_SECONDS: 0.005 }, { database })
  const node = { api: server.api, url: server.http }
  const key = await register(node.api, 'k1')
  let done = 0
  const reporting = Array.from({ length: 6 }, async () => {
    while (done++ < FAILURES) await report(node, 'k1', key, 'failed')
  })
  const acknowledged: Alert[] = []
  const acknowledging = (async () => {
    while (done < FAILURES) {
      for (const { id } of await alertsOf(server)) {
        acknowledged.push((await server.api.post(`/alerts/${id}/acknowledge`)).body)
      }
    }
  })()
  await Promise.all([...reporting, acknowledging])
  await untilLookedAt(server)
  const counts = await server.sql<{ n: number }>('select sum(count)::int as n from alerts')
  expect(counts).toEqual([{ n: FAILURES }])
  // What was ended is not counted on.
  expect(acknowledged.length).toBeGreaterThan(5)
  expect(await alertsOf(server, 'state=resolved')).toEqual(acknowledged.reverse())
  console.log(`${FAILURES} failures, acknowledged ${acknowledged.length} times in between`)
  await server.stop()
})

test('an existing history is not looked through: what was over before is no alert', async () => {
  const first = await start(false)
  const key = await register(first.api, 'k1')
  for (const status of ['failed', 'outcome_unknown']) await report(first, 'k1', key, status)
  await first.kill()
  // The upgrade that brought the alerts, on a database that has a history.
  await database.query('drop table alerts, feed_cursors')
  await upgrade(upAlerts)
  const second = await start(true)
  await report(second, 'k1', key, 'rejected')
  await untilOpen(second, 'command_failed', 'k1')
  expect(await alertsOf(second, 'state=all')).toMatchObject([{ kind: 'command_failed', count: 1 }])
  await second.kill()
  // The one that brought those of security events.
  await database.query(`alter table security_events drop column alerted;
    insert into security_events (kind, severity, subject, minute, detail, count, first_at, last_at)
    values ('revoked_key', 'critical', 'k1', now(), 'x', 5, now(), now())`)
  await upgrade(upSecurity)
  const third = await start(true)
  await untilLookedAt(third)
  expect(await alertsOf(third, 'kind=security_event&state=all')).toEqual([])
})
