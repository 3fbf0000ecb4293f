import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { alertsOf, untilOpen } from '../alerts/support.ts'
import { expectProblem } from '../api/support.ts'
import { createOwnServer, createTestDatabase, type TestDatabase } from '../support/database.ts'
import { type Device, ROOT, startDevice } from '../support/device.ts'
import { openStream } from '../support/event-source.ts'
import { httpClient } from '../support/http.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { age, ageAlert, countRemovals, fillHistory, orphans } from './support.ts'

/** Of its own: one of these tests keeps a transaction open, which would hold up the feed of others. */
let database: TestDatabase
let server: TestServer
let device: Device & { clientKey: string }

beforeAll(async () => {
  database = await createOwnServer()
  server = await startServer({ RETENTION_DAYS: 30, RETENTION_INTERVAL_SECONDS: 0.05 }, { database })
  await server.api.post('/clients', { id: 'absent' })
  device = await startDevice(server, 'd1')
})
afterAll(async () => {
  device.drop()
  await server.stop()
  await database.drop()
})

const send = async (body: Record<string, unknown> = {}): Promise<string> => {
  const answer = await server.api.post('/commands', { clientId: 'd1', action: 'print', ...body })
  expect(answer.status).toBe(201)
  return answer.body.id
}

/** Takes the next command and reports how it ended. */
async function work(status: string): Promise<string> {
  const { messageId, payload } = await device.nextCommand()
  device.ack(messageId)
  await device.report(payload.id as string, { status, attempt: 1 })
  return payload.id as string
}

async function finished(status = 'completed'): Promise<string> {
  const id = await send()
  expect(await work(status)).toBe(id)
  return id
}

const exists = async (id: string): Promise<boolean> =>
  (await server.sql('select 1 from commands where id = $1', [id])).length > 0
const gone = (id: string) => until(async () => !(await exists(id)), `${id} is gone`)

/** Whatever is older than this one was looked at once it is gone. */
async function passOver(days: number): Promise<void> {
  await gone(await age(server.sql, await finished(), days))
}

const rowsOf = (ids: string[]) =>
  Promise.all(
    [
      'select * from commands where id = any($1::uuid[]) order by id',
      'select * from executions where command_id = any($1::uuid[]) order by command_id, client_id',
      'select * from events where command_id = any($1::uuid[]) order by id',
    ].map((query) => server.sql(query, [ids])),
  )

describe('a command that ended longer ago than RETENTION_DAYS', () => {
  test('is removed with its executions and events, and unknown at every door', async () => {
    const id = await age(server.sql, await finished(), 31)
    await gone(id)
    expect(await rowsOf([id])).toEqual([[], [], []])
    for (const path of ['', '/executions', '/timeline', '/explain', '/stream']) {
      expectProblem(await server.api.get(`/commands/${id}${path}`), 404, 'NOT_FOUND')
    }
    for (const verb of ['cancel', 'retry']) {
      expectProblem(await server.api.post(`/commands/${id}/${verb}`, {}), 404, 'NOT_FOUND')
    }
    const { body } = await server.api.get('/commands?clientId=d1&limit=200')
    expect(body.items.map((command: { id: string }) => command.id)).not.toContain(id)
  })

  test.each(['completed', 'failed', 'rejected', 'cancelled', 'expired'])('goes if it is %s', async (status) => {
    await gone(await age(server.sql, await finished(status), 31))
  })

  test('goes as a group only when all of it has ended, and then at once', async () => {
    const other = await startDevice(server, 'd2')
    for (const id of ['d1', 'd2']) await server.api.send('PUT', `/zones/R/clients/${id}`)
    const { body } = await server.api.post('/commands', { zone: 'R', action: 'print' })
    const { messageId } = await device.nextCommand()
    device.ack(messageId)
    await device.report(body.id, { status: 'completed', attempt: 1 })
    await other.nextCommand()
    await other.report(body.id, { status: 'outcome_unknown', attempt: 1 })
    const id = await age(server.sql, body.id, 32)
    await passOver(31)
    expect(await rowsOf([id]).then(([, executions]) => executions)).toHaveLength(2)
    await server.sql(
      "update executions set status = 'completed', completed_at = clock_timestamp() - interval '29 days' where command_id = $1 and client_id = 'd2'",
      [id],
    )
    await passOver(31)
    expect(await exists(id)).toBe(true)
    await server.sql(
      "update executions set completed_at = clock_timestamp() - interval '31 days' where command_id = $1 and client_id = 'd2'",
      [id],
    )
    await gone(id)
    expect(await rowsOf([id])).toEqual([[], [], []])
    await other.end()
    await server.api.send('DELETE', '/zones/R/clients/d1')
  })
})

test('what has not ended, ended lately, or waits for a word stays as it is, however old it is', async () => {
  const pending = await age(server.sql, await send({ clientId: 'absent' }), 400)
  await send()
  const running = await age(server.sql, await work('running'), 400)
  const doubtful = await finished('outcome_unknown')
  // Its alert is an event of the command, too.
  await until(
    async () =>
      (await server.sql("select 1 from events where command_id = $1 and type = 'alert.opened'", [doubtful])).length > 0,
    'the unknown outcome has its alert',
  )
  const unknown = await age(server.sql, doubtful, 400)
  const endedLately = await age(server.sql, await finished(), 40)
  await server.sql(
    "update executions set completed_at = clock_timestamp() - interval '29 days' where command_id = $1",
    [endedLately],
  )
  const recent = await finished()
  const kept = [pending, running, unknown, endedLately, recent]
  const before = await rowsOf(kept)
  // Twice: the second pass begins before what the first one left.
  await passOver(31)
  await passOver(31)
  expect(await rowsOf(kept)).toEqual(before)
  expect(before[0]).toHaveLength(5)
  await server.api.post(`/commands/${unknown}/executions/d1/resolve`, { outcome: 'completed', note: 'seen' })
  expect((await server.api.get(`/commands/${unknown}`)).body).toMatchObject({ status: 'completed' })
  await device.report(running, { status: 'completed', attempt: 1 })
})

test('events that belong to no command go at the same age', async () => {
  await device.publish(`${ROOT}/clients/d1/events/scan`, { id: 'old', code: '1' })
  await device.publish(`${ROOT}/clients/d1/events/scan`, { id: 'recent', code: '2' })
  await server.sql(
    `update events set at = at - interval '31 days' where client_event_id = 'old' or type = 'client.created'`,
  )
  const events = () =>
    server.sql<{ type: string; client_event_id: string | null }>(
      'select type, client_event_id from events where command_id is null',
    )
  await until(async () => {
    const found = await events()
    return !found.some(({ type, client_event_id }) => client_event_id === 'old' || type === 'client.created')
  }, 'they are gone')
  expect((await events()).map(({ client_event_id }) => client_event_id)).toContain('recent')
  expect((await server.api.get('/clients/d1')).status).toBe(200)
})

test('so does the news of an alert that was acknowledged when its command was gone', async () => {
  const id = await finished('outcome_unknown')
  const alert = await until(
    async () => (await server.api.get(`/alerts?commandId=${id}`)).body.items[0] as { id: string } | undefined,
    'the alert',
  )
  await server.api.post(`/commands/${id}/executions/d1/resolve`, { outcome: 'completed', note: 'seen' })
  await until(
    async () => (await server.api.get(`/alerts?commandId=${id}&state=resolved`)).body.items.length === 1,
    'the alert is resolved',
  )
  const older = await age(server.sql, id, 31)
  await gone(older)
  expect((await server.api.post(`/alerts/${alert.id}/acknowledge`, {})).status).toBe(200)
  const news = () => server.sql("select at from events where command_id = $1 and type = 'alert.acknowledged'", [id])
  expect(await news()).toHaveLength(1)
  await server.sql("update events set at = at - interval '31 days' where command_id = $1", [id])
  await until(async () => (await news()).length === 0, 'the news is gone')
})

test('an alert that was resolved longer ago is removed; one that is not, or was lately, stays', async () => {
  const ended = async (): Promise<string> => {
    await finished('failed')
    const { id } = await untilOpen(server, 'command_failed', 'd1')
    expect((await server.api.post(`/alerts/${id}/acknowledge`, {})).body.state).toBe('resolved')
    return id
  }
  const late = await ageAlert(server.sql, await ended(), 400, 29)
  await finished('outcome_unknown')
  const { id: doubt } = await until(
    async () => (await alertsOf(server, 'kind=outcome_unknown&clientId=d1'))[0],
    'the alert of an unknown outcome',
  )
  const open = await ageAlert(server.sql, doubt, 400)
  const old = await ageAlert(server.sql, await ended(), 31)
  await until(
    async () => (await server.sql('select 1 from alerts where id = $1', [old])).length === 0,
    'the old alert is gone',
  )
  expectProblem(await server.api.post(`/alerts/${old}/acknowledge`, {}), 404, 'NOT_FOUND')
  const left = (await alertsOf(server, 'state=all&clientId=d1')).map(({ id }) => id)
  expect(left).toEqual(expect.arrayContaining([late, open]))
  expect(left).not.toContain(old)
})

test('an enrolment that expired longer ago is removed, and the clients that came by it stay', async () => {
  const enrol = async (): Promise<string> => {
    const { body } = await server.api.post('/enrolments', { maxUses: 2 })
    return body.enrolment.id
  }
  const [old, recent] = [await enrol(), await enrol()]
  await server.api.post('/clients', { id: 'enrolled' })
  await server.sql("update clients set enrolment_id = $1 where id = 'enrolled'", [old])
  const expired = `update enrolments set expires_at = clock_timestamp() - make_interval(days => $2) where id = $1`
  await server.sql(expired, [recent, 29])
  await server.sql(expired, [old, 31])
  const left = async (): Promise<string[]> =>
    (await server.api.get('/enrolments')).body.items.map(({ id }: { id: string }) => id)
  await until(async () => !(await left()).includes(old), 'the old enrolment is gone')
  expect(await left()).toContain(recent)
  expect((await server.api.get('/clients/enrolled')).status).toBe(200)
})

test('alerts and audit rows go in batches, and the audit by a setting of its own', async () => {
  const BATCH = 4
  const DAYS = { RETENTION_DAYS: 0, AUDIT_KEEP_DAYS: 10, RETENTION_BATCH: BATCH, RETENTION_INTERVAL_SECONDS: 0.05 }
  const many = await createTestDatabase()
  for (const table of ['alerts', 'audit']) await countRemovals(many.query, table)
  await many.query(`
    insert into alerts (id, kind, subject, severity, message, details, count, opened_at, last_at, resolved_at, resolution)
    select (lpad(to_hex(floor(date_part('epoch', at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
        || '8' || substr(md5(n::text), 1, 15))::uuid, 'feed_lag', 'feed', 'critical', 'x', '{}', 1, at, at, at, 'x'
    from generate_series(1, 50) n, lateral (select clock_timestamp() - interval '31 days' as at) t;
    insert into audit (at, kind, subject) select clock_timestamp() - make_interval(days => n), 'client.created', 'client:x'
    from generate_series(1, 50) n`)
  const rows = async (table: string) => (await many.query(`select 1 from ${table}`)).length
  const removed = (table: string) =>
    many.query<{ most: number; n: number }>(
      'select max(n)::int as most, sum(n)::int as n from removals where of = $1 group by of',
      [table],
    )
  const first = await startServer(DAYS, { database: many })
  await until(async () => (await removed('audit'))[0]?.n === 41, 'the old audit rows are gone')
  expect(await removed('audit')).toEqual([{ most: BATCH, n: 41 }])
  const { items } = (await first.api.get('/audit?subject=client:x')).body
  expect(items).toHaveLength(9)
  await first.stop()
  expect(await rows('alerts')).toBe(50)

  const second = await startServer({ ...DAYS, RETENTION_DAYS: 30, AUDIT_KEEP_DAYS: 0 }, { database: many })
  await second.sql("update audit set at = at - interval '100 years'")
  await until(async () => (await rows('alerts')) === 0, 'the old alerts are gone')
  expect(await removed('alerts')).toEqual([{ most: BATCH, n: 50 }])
  expect(await removed('audit')).toEqual([{ most: BATCH, n: 41 }])
  const text = await (await fetch(new URL('/metrics', second.http))).text()
  expect(text).toContain('signalbox_retention_removed_total{kind="alerts"} 50\n')
  expect(text).toContain('signalbox_retention_removed_total{kind="audit"} 0\n')
  await second.stop()
  await many.drop()
})

test('a stream that resumes at an event that is gone goes on with what is there', async () => {
  const first = await finished()
  const [position] = await server.sql<{ xid: string; id: number }>(
    `select xid::text as xid, id from events where command_id = $1 and type = 'execution.queued'`,
    [first],
  )
  await gone(await age(server.sql, first, 31))
  const second = await finished()
  const stream = await openStream(
    `${server.http}/api/events?clientId=d1`,
    ADMIN_TOKEN,
    `${position?.xid}-${position?.id}`,
  )
  await until(() => stream.messages.some(({ event }) => event === 'execution.completed'), 'the next event')
  expect(stream.messages.map(({ data }) => data.commandId)).not.toContain(first)
  expect(stream.messages.filter(({ data }) => data.commandId === second).map(({ event }) => event)).toEqual([
    'command.created',
    'execution.queued',
    'execution.delivered',
    'execution.completed',
  ])
  stream.close()
})

test('a late report is acknowledged and answered with an error, as for any unknown command', async () => {
  const id = await age(server.sql, await finished(), 31)
  await gone(id)
  await device.subscribe(`${ROOT}/clients/d1/replies`)
  await device.report(id, { status: 'completed', attempt: 1 })
  const [reply] = await until(() => {
    const replies = device.received(`${ROOT}/clients/d1/replies`)
    return replies.length > 0 ? replies : undefined
  }, 'the reply')
  expect(reply?.payload).toMatchObject({ type: 'error', code: 'NOT_FOUND' })
  const answer = await httpClient(server.http, device.clientKey).send('PUT', `/commands/${id}/status`, {
    status: 'completed',
  })
  expectProblem(answer, 404, 'NOT_FOUND')
  expect(await rowsOf([id])).toEqual([[], [], []])
})

test.each([
  ['its execution', "select 1 from executions where command_id = $1 and client_id = 'd1' for update"],
  ['itself', 'select 1 from commands where id = $1 for update'],
])('a command is left while somebody holds %s, and nobody waits for anybody', async (_what, lock) => {
  await fillHistory(server.sql, { count: 1, days: 33, clientId: 'd1', status: 'running' })
  const [held] = await server.sql<{ id: string }>('select min(id::text) as id from commands where created_by = $1', [
    'history',
  ])
  const id = held?.id as string
  await server.sql('update commands set total = 2 where id = $1', [id])
  await server.sql(
    `insert into executions (command_id, client_id, status, attempt, priority, expires_at) select command_id, 'absent', status, attempt, priority, expires_at
      from executions where command_id = $1`,
    [id],
  )
  const end = (clientId: string) =>
    server.sql(
      "update executions set status = 'failed', completed_at = clock_timestamp() - interval '32 days' where command_id = $1 and client_id = $2",
      [id, clientId],
    )
  await end('d1')
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  await client.query('begin')
  expect((await client.query(lock, [id])).rowCount).toBe(1)
  await end('absent')
  await passOver(31)
  await passOver(31)
  expect(await rowsOf([id]).then((rows) => rows.map(({ length }) => length))).toEqual([1, 2, 5])
  await client.query('rollback')
  await client.end()
  await gone(id)
  expect(await orphans(server.sql)).toEqual([])
})

test('a table that refers to a command keeps it, and only it, with its history', async () => {
  await server.sql('create table notes (command_id uuid references commands (id))')
  const noted = await finished()
  const plain = [await finished(), await finished()]
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  await client.query('begin')
  const sql: TestDatabase['query'] = async (text, values) => (await client.query(text, values)).rows
  const kept = await age(sql, noted, 33)
  await sql('insert into notes values ($1)', [kept])
  const older = await Promise.all(plain.map((id) => age(sql, id, 32)))
  await client.query('commit')
  await client.end()
  for (const id of older) await gone(id)
  const [commands, executions, events] = await rowsOf([kept])
  expect([commands?.length, executions?.length, events?.length]).toEqual([1, 1, 4])
  expect(server.logs.some((line) => line.msg === 'old command cannot be removed' && line.commandId === kept)).toBe(true)
  await server.sql('drop table notes')
  await gone(kept)
})

test('a retry that comes just before lets the command live as a whole; one that comes too late is told so', async () => {
  const racing = await startServer({ RETENTION_DAYS: 30, RETENTION_INTERVAL_SECONDS: 0.05, RETENTION_BATCH: 4 })
  const { sql, api } = racing
  await api.post('/clients', { id: 'r1' })
  await fillHistory(sql, { count: 300, days: 31, clientId: 'r1', status: 'failed' })
  const failed = await sql<{ id: string }>('select id from commands order by id desc')
  // The newest first: retention begins with the oldest, so that they meet on the way.
  await until(async () => (await sql('select 1 from commands')).length < failed.length, 'the oldest are going')
  const answers: { id: string; retried: boolean }[] = []
  const queue = failed.values()
  await Promise.all(
    Array.from({ length: 5 }, async () => {
      for (const { id } of queue) {
        const { status, body } = await api.post(`/commands/${id}/retry`, { ttlSeconds: 600 })
        expect([200, 404]).toContain(status)
        answers.push({ id, retried: status === 200 && body.retried === 1 })
      }
    }),
  )
  await until(async () => (await sql("select 1 from executions where status = 'failed'")).length === 0, 'all are gone')
  for (const { id, retried } of answers) {
    const found = await sql('select status, attempt from executions where command_id = $1', [id])
    const events = await sql('select 1 from events where command_id = $1', [id])
    expect(found).toEqual(retried ? [{ status: 'pending', attempt: 2 }] : [])
    expect(events).toHaveLength(retried ? 6 : 0)
  }
  const lived = answers.filter(({ retried }) => retried).length
  console.log(`${failed.length} retried while they were removed: ${lived} live on`)
  expect(lived).toBeGreaterThan(0)
  expect(lived).toBeLessThan(failed.length)
  expect(await orphans(sql)).toEqual([])
  await racing.stop()
})

test('nothing went wrong on the way', async () => {
  expect(server.logs.filter((line) => (line.level as number) >= 50)).toEqual([])
})

test('the settings are judged together: a key must not outlive its command', async () => {
  await expect(startServer({ RETENTION_DAYS: 1, IDEMPOTENCY_KEY_SECONDS: 86_401 }, { database })).rejects.toThrow(
    'RETENTION_DAYS: 1 days are shorter than IDEMPOTENCY_KEY_SECONDS',
  )
})

test('with RETENTION_DAYS=0 everything stays', async () => {
  const keeping = await startServer({ RETENTION_DAYS: 0, RETENTION_INTERVAL_SECONDS: 0.01 })
  await keeping.api.post('/clients', { id: 'k1' })
  await fillHistory(keeping.sql, { count: 20, days: 36_000, clientId: 'k1' })
  const { body } = await keeping.api.post('/commands', { clientId: 'k1', action: 'print', ttlSeconds: 1 })
  await until(async () => (await keeping.api.get(`/commands/${body.id}`)).body.status === 'expired', 'time has passed')
  expect(await keeping.sql('select 1 from commands')).toHaveLength(21)
  expect(await keeping.sql("select 1 from events where type = 'client.created'")).toHaveLength(1)
  await keeping.stop()
})
