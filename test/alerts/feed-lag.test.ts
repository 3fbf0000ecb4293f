import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connectDatabase } from '../../db/connect.ts'
import { feedLagSeconds } from '../../db/events.ts'
import { command, register } from '../broker/support/scene.ts'
import { openStream } from '../support/event-source.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { alertsOf, untilLookedAt, untilOpen, untilResolved } from './support.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer({ ALERT_FEED_LAG_SECONDS: 0.3, ALERT_CLIENT_LOST_SECONDS: 0.1 }, { ownPostgres: true })
})
afterAll(() => server.stop())

/** Somebody's transaction in another database of the same PostgreSQL server. */
async function openTransaction(): Promise<{ pid: number; end(): Promise<void> }> {
  const url = new URL(server.database_.url)
  url.pathname = '/postgres'
  const client = new pg.Client({ connectionString: url.href, application_name: 'a long report' })
  await client.connect()
  await client.query('begin')
  client.on('error', () => undefined)
  const { rows } = await client.query('select pg_backend_pid() as pid, pg_current_xact_id()')
  return {
    pid: rows[0].pid,
    async end() {
      await client.query('commit')
      await client.end()
    },
  }
}

async function lag(): Promise<number> {
  const db = connectDatabase({
    connection: server.database_.url,
    poolSize: 1,
    timeoutSeconds: 5,
    onIdleError: () => undefined,
  })
  try {
    return await feedLagSeconds(db)
  } finally {
    await db.destroy()
  }
}

test('an open transaction that holds the feed back is an alert that names it, until the feed has caught up', async () => {
  const stream = await openStream(`${server.http}/api/events?types=alert.opened,alert.resolved`, ADMIN_TOKEN)
  await untilLookedAt(server)
  expect(await alertsOf(server, 'state=all')).toEqual([])
  await until(async () => (await lag()) === 0, 'nothing is held back')

  const blocker = await openTransaction()
  await register(server, 'f1')
  const alert = await untilOpen(server, 'feed_lag', 'feed')
  expect(alert).toMatchObject({
    severity: 'critical',
    state: 'open',
    count: 1,
    message: expect.stringContaining(`process ${blocker.pid} (a long report) in database postgres since `),
    details: { blocker: { who: `process ${blocker.pid} (a long report)`, database: 'postgres' } },
  })
  expect(await lag()).toBeGreaterThan(0.3)
  // What needs no feed is seen all the same; and this alert is written once, however long it lasts.
  await command(server, 'f1')
  await untilOpen(server, 'client_lost', 'f1')
  const version = async () => (await server.sql("select version from feed_cursors where name = 'alerts'"))[0]?.version
  const before = await version()
  const held = await lag()
  await until(async () => (await lag()) > held + 0.3, 'it lasts')
  expect(await version()).toBe(before)
  expect(await untilOpen(server, 'feed_lag', 'feed')).toEqual(alert)
  expect(stream.messages).toEqual([])

  await blocker.end()
  expect(await untilResolved(server, alert)).toMatchObject({ resolution: 'the feed has caught up', count: 0 })
  await until(() => stream.messages.some(({ event }) => event === 'alert.resolved'), 'the feed shows it')
  expect(stream.messages.map(({ event, data }) => `${event} ${data.data.kind}`)).toEqual([
    'alert.opened feed_lag',
    'alert.opened client_lost',
    'alert.resolved feed_lag',
  ])
  stream.close()
  const next = await openTransaction()
  await command(server, 'f1')
  expect((await untilOpen(server, 'feed_lag', 'feed')).id).not.toBe(alert.id)
  await next.end()
})
