import { afterEach, beforeEach, expect, test } from 'vitest'
import { createOwnServer, type TestDatabase } from '../support/database.ts'
import { startDevice } from '../support/device.ts'
import { startServer } from '../support/server.ts'
import { startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'
import { fillHistory, orphans } from './support.ts'

/** Commands that have become old at once; `BACKLOG=200000 npx vitest run test/retention/backlog.test.ts` for the long form. */
const BACKLOG = Number(process.env.BACKLOG ?? 6000)
const BATCH = 500
/** As old, and to stay: they are in the way of whoever looks for the oldest. */
const IN_THE_WAY = 700

let database: TestDatabase

beforeEach(async () => {
  database = await createOwnServer()
})
afterEach(() => database.drop())

const settings = { RETENTION_DAYS: 30, RETENTION_INTERVAL_SECONDS: 0.05, RETENTION_BATCH: BATCH }
const countOf = async (what: string): Promise<number> =>
  (await database.query<{ n: number }>(`select count(*)::integer as n from ${what}`))[0]?.n as number
const backlog = () =>
  countOf("executions where status = 'completed' and completed_at < clock_timestamp() - interval '30 days'")

/** Before anything is removed: what came later would be older than what is gone. */
async function fill(clientId: string): Promise<void> {
  const keeping = await startServer({ ...settings, RETENTION_DAYS: 0 }, { database })
  await keeping.api.post('/clients', { id: clientId })
  await keeping.stop()
  await fillHistory(database.query, { count: IN_THE_WAY, days: 200, clientId, status: 'outcome_unknown' })
  for (let left = BACKLOG; left > 0; left -= 20_000) {
    await fillHistory(database.query, { count: Math.min(left, 20_000), days: 100, clientId })
  }
}

/** PostgreSQL itself keeps the book of how much each transaction removed. */
async function watchRemovals(): Promise<void> {
  await database.query(`create table removals (what text, rows integer, oldest text, newest text, xid xid8 default pg_current_xact_id(), began timestamptz default transaction_timestamp(),
    at timestamptz default clock_timestamp())`)
  await database.query(`create function note_removal() returns trigger language plpgsql as $$
    begin insert into removals (what, rows, oldest, newest) select tg_table_name, count(*), min(to_jsonb(gone) ->> 'id'), max(to_jsonb(gone) ->> 'id')
      from gone having count(*) > 0; return null; end $$`)
  for (const table of ['executions', 'events', 'commands']) {
    await database.query(`create trigger note_removal after delete on ${table} referencing old table as gone
      for each statement execute function note_removal()`)
  }
}

test(
  'a large backlog goes in bounded batches, oldest first, while commands keep flowing',
  async () => {
    await fill('history')
    await watchRemovals()
    const server = await startServer(settings, { database })
    const device = await startDevice(server, 'd1')
    const latencies: number[] = []
    await until(
      async () => {
        const start = performance.now()
        const { body } = await server.api.post('/commands', { clientId: 'd1', action: 'print' })
        const { messageId, payload } = await device.nextCommand()
        expect(payload.id).toBe(body.id)
        device.ack(messageId)
        await device.report(body.id, { status: 'completed', attempt: 1 })
        latencies.push(performance.now() - start)
        // Counting the rows is more work than a command.
        return latencies.length % 20 === 0 && (await backlog()) === 0
      },
      'the backlog is gone',
      60_000 + BACKLOG * 2,
    )
    expect(await countOf("commands where created_by = 'history'")).toBe(IN_THE_WAY)
    expect(await countOf("executions where client_id = 'history' and status = 'outcome_unknown'")).toBe(IN_THE_WAY)
    expect(await countOf("executions where client_id = 'd1' and status = 'completed'")).toBe(latencies.length)
    expect(await orphans(database.query)).toEqual([])

    const removals = await database.query<{ what: string; rows: number; ms: number }>(
      'select what, sum(rows)::integer as rows, max(extract(epoch from at - began) * 1000)::float8 as ms from removals group by what, xid order by min(at)',
    )
    const most = (what: string) => Math.max(...removals.filter((one) => one.what === what).map(({ rows }) => rows))
    expect(most('executions')).toBeLessThanOrEqual(BATCH)
    expect(most('events')).toBeLessThanOrEqual(10 * BATCH)
    const [disorder] = await database.query<{ n: number }>(
      `select count(*)::integer as n from (select oldest, lag(newest) over (order by at) as before from removals where what = 'commands') r
      where r.before > r.oldest`,
    )
    expect(disorder?.n).toBe(0)
    const batches = removals.filter(({ what }) => what === 'commands').map(({ ms }) => ms)
    expect(batches.length).toBeGreaterThanOrEqual(BACKLOG / BATCH)
    const p = (values: number[], q: number) =>
      values.toSorted((a, b) => a - b)[Math.floor(values.length * q)]?.toFixed(1)
    console.log(
      `${BACKLOG} old commands in ${batches.length} batches of p50 ${p(batches, 0.5)} ms, p99 ${p(batches, 0.99)} ms; ` +
        `meanwhile ${latencies.length} commands from POST to completed in p50 ${p(latencies, 0.5)} ms, p99 ${p(latencies, 0.99)} ms`,
    )
    device.drop()
    await server.stop()
  },
  120_000 + BACKLOG * 3,
)

test('a command with more history than a batch goes in pieces, its executions together', async () => {
  const server = await startServer({ ...settings, RETENTION_BATCH: 10, RETENTION_INTERVAL_SECONDS: 0.5 }, { database })
  await server.api.post('/clients', { id: 'c0' })
  await watchRemovals()
  await database.query(
    `insert into clients (id, name, key_hash, max_in_flight) select 'c' || n, 'c', sha256(n::text::bytea), 8 from generate_series(1, 299) n`,
  )
  await fillHistory(database.query, { count: 1, days: 40, clientId: 'c0', status: 'running' })
  await database.query(`update commands set total = 300`)
  await database.query(`insert into executions (command_id, client_id, status, attempt, priority, expires_at, completed_at)
    select c.id, 'c' || n, 'completed', 1, 5, c.expires_at, c.created_at from commands c, generate_series(1, 299) n`)
  await database.query(`insert into events (type, command_id, client_id, attempt, at)
    select 'execution.progress', e.command_id, e.client_id, 1, e.completed_at from executions e, generate_series(1, 3) n`)
  await database.query(
    "update executions set status = 'completed', completed_at = expires_at - interval '7 days' where client_id = 'c0'",
  )
  await until(async () => (await countOf('commands')) === 0, 'it is gone')
  expect(await countOf('executions')).toBe(0)
  expect(await countOf('events where command_id is not null')).toBe(0)
  const removals = await database.query<{ what: string; rows: number }>('select what, rows from removals order by at')
  expect(removals.filter(({ what }) => what === 'executions')).toEqual([{ what: 'executions', rows: 300 }])
  const events = removals.filter(({ what }) => what === 'events').map(({ rows }) => rows)
  expect(Math.max(...events)).toBeLessThanOrEqual(100)
  expect(events.length).toBeGreaterThan(9)
  await server.stop()
})

test('a server that is killed in the middle leaves nothing half removed, and the next one goes on', async () => {
  await fill('history')
  for (let left = await backlog(); left > 0; ) {
    const server = await startServerProcess(database, { settings: { ...settings, RETENTION_BATCH: 100 } })
    const limit = left - Math.min(left, BACKLOG / 3)
    await until(async () => (await backlog()) <= limit, 'some of it is gone', 60_000)
    await server.kill()
    expect(await orphans(database.query)).toEqual([])
    left = await backlog()
  }
  expect(await countOf('commands')).toBe(IN_THE_WAY)
  expect(await countOf("events where command_id is not null and type not like 'alert.%'")).toBe(IN_THE_WAY * 5)
}, 120_000)
