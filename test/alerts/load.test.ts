import { afterAll, beforeAll, expect, test } from 'vitest'
import { register } from '../broker/support/scene.ts'
import { closeDatabase, reopenDatabase } from '../support/database-faults.ts'
import { connectDevice } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { alertsOf, untilLookedAt, untilOpen } from './support.ts'

const MAX_REFUSED = 5

let server: TestServer

beforeAll(async () => {
  server = await startServer(
    {
      ALERT_MAX_REFUSED_CLIENTS: MAX_REFUSED,
      SWEEP_INTERVAL_SECONDS: 0.1,
      CREDENTIAL_CACHE_SECONDS: 600,
      // Bad logins are not slowed down here: it is their number that matters.
      MQTT_LOGIN_FAILURES_PER_MINUTE: 1_000_000,
    },
    { ownPostgres: true },
  )
})
afterAll(() => server.stop())

const versionOf = async (): Promise<number> =>
  Number((await server.sql("select version from feed_cursors where name = 'alerts'"))[0]?.version)

/** Logins under these names, many at a time; answers their return codes. */
async function logins(names: string[], password: string): Promise<number[]> {
  const codes: number[] = []
  let next = 0
  const one = async (): Promise<void> => {
    for (let name = names[next++]; name !== undefined; name = names[next++]) {
      const device = await connectDevice(server, { clientId: name, password })
      codes.push(device.returnCode)
      device.drop()
    }
  }
  await Promise.all(Array.from({ length: 20 }, one))
  return codes
}

test('a flood of bad logins is one alert that is rarely written, and good logins do not wait for it', async () => {
  const key = await register(server, 'victim')
  const good = await register(server, 'good')
  const FLOOD = 1500
  const began = performance.now()
  const before = await versionOf()
  const names = Array.from({ length: FLOOD }, (_, index) => (index % 3 === 0 ? `nobody-${index}` : 'victim'))
  const flooding = logins(names, 'sbk_wrong')
  const codes = await logins(Array(20).fill('good'), good)
  expect(new Set(codes)).toEqual(new Set([0]))
  expect(new Set(await flooding)).toEqual(new Set([4]))
  const seconds = (performance.now() - began) / 1000
  const alert = await untilOpen(server, 'client_refused', 'victim', ({ count }) => count === (FLOOD * 2) / 3)
  expect(await alertsOf(server, 'state=all&kind=client_refused')).toEqual([alert])
  // One statement per look for all of it, whatever the flood; the events of the good logins are in the same ones.
  const writes = (await versionOf()) - before
  expect(writes).toBeLessThanOrEqual(Math.ceil(seconds / 0.1) + 2)
  console.log(`${FLOOD} bad logins in ${seconds.toFixed(1)} s: ${writes} writes`)
  expect(await logins(['victim'], key)).toEqual([0])
  await until(async () => (await alertsOf(server, 'kind=client_refused')).length === 0, 'resolved')
}, 60_000)

test('what is remembered of refusals is bounded', async () => {
  const names = Array.from({ length: 2 * MAX_REFUSED }, (_, index) => `bounded-${index}`)
  await Promise.all(names.map((name) => register(server, name)))
  await untilLookedAt(server)
  // Nothing can be stored: it is kept, as far as there is room.
  await server.sql("update feed_cursors set name = 'hidden' where name = 'alerts'")
  for (const name of names) await logins([name, name], 'sbk_wrong')
  await server.sql("update feed_cursors set name = 'alerts' where name = 'hidden'")
  await untilLookedAt(server)
  const alerts = (await alertsOf(server, 'kind=client_refused')).filter(({ subject }) => names.includes(subject))
  expect(alerts.map(({ count }) => count)).toEqual(Array(MAX_REFUSED).fill(2))
})

test('while the database is down, refusals are kept and nobody waits for them', async () => {
  await register(server, 'waits')
  expect(await logins(['waits'], 'sbk_wrong')).toEqual([4])
  await untilOpen(server, 'client_refused', 'waits')
  await closeDatabase(server.database_)
  try {
    // The credential is remembered: refused as ever. An unknown name cannot be looked up: not refused, but not let in either.
    expect(await logins(Array(20).fill('waits'), 'sbk_wrong')).toEqual(Array(20).fill(4))
    expect(await logins(['stranger'], 'sbk_wrong')).toEqual([3])
  } finally {
    await reopenDatabase(server.database_)
  }
  await untilOpen(server, 'client_refused', 'waits', ({ count }) => count === 21)
})

test('a broadcast to 10,000 lost clients is 10,000 alerts in a few statements, and ends as cheaply', async () => {
  const FLEET = 10_000
  await server.sql(
    `insert into clients (id, name, key_hash, max_in_flight, presence_since)
     select 'fleet-' || n, 'fleet', decode(md5(n::text), 'hex'), 8, clock_timestamp() - interval '1 hour' from generate_series(1, $1::int) n`,
    [FLEET],
  )
  await untilLookedAt(server)
  const before = await versionOf()
  const began = performance.now()
  const { status, body } = await server.api.post('/commands', { broadcast: true, action: 'lock' })
  expect(status).toBe(201)
  const open = async () =>
    (await server.sql(`select count(*)::int as n from alerts where kind = 'client_lost' and resolved_at is null`))[0]?.n
  await until(async () => (await open()) === FLEET, 'all are lost', 30_000)
  const opened = performance.now()
  const writes = (await versionOf()) - before
  await server.api.post(`/commands/${body.id}/cancel`)
  const cancelled = performance.now()
  await until(async () => (await open()) === 0, 'nothing waits', 30_000)
  console.log(
    `${FLEET} alerts opened in ${Math.round(opened - began)} ms with ${writes} writes, resolved in ${Math.round(performance.now() - cancelled)} ms`,
  )
  // Each look makes at most one write; without work for so many it would have been the same number.
  expect(writes).toBeLessThanOrEqual(Math.ceil((opened - began) / 100) + 1)
  const events = await server.sql<{ type: string; n: number }>(
    `select type, count(*)::int as n from events where client_id like 'fleet-%' and type like 'alert.%' group by type order by type`,
  )
  expect(events).toEqual([
    { type: 'alert.opened', n: FLEET },
    { type: 'alert.resolved', n: FLEET },
  ])
}, 120_000)

test('100,000 events are caught up with, and the few that tell something are counted', async () => {
  const EVENTS = 100_000
  await register(server, 'busy')
  const began = performance.now()
  await server.sql(
    `insert into events (type, client_id, command_id, attempt, data)
     select case when n % 100 = 0 then 'execution.failed' else 'execution.completed' end, 'busy', gen_random_uuid(), 1,
       '{"error":{"code":"JAM","message":"stuck"}}'
     from generate_series(1, $1::int) n`,
    [EVENTS],
  )
  const inserted = performance.now()
  await untilOpen(server, 'command_failed', 'busy', ({ count }) => count === EVENTS / 100)
  console.log(
    `${EVENTS} events written in ${Math.round(inserted - began)} ms, caught up with ${Math.round(performance.now() - inserted)} ms later`,
  )
}, 60_000)
