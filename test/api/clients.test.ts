import { createHash } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connectDevice, ROOT, startDevice } from '../support/device.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { expectProblem } from './support.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

const create = async (id: string, body: Record<string, unknown> = {}): Promise<string> => {
  const answer = await server.api.post('/clients', { id, ...body })
  expect(answer.status).toBe(201)
  return answer.body.clientKey
}
const send = async (clientId: string, more: Record<string, unknown> = {}): Promise<string> => {
  const answer = await server.api.post('/commands', { clientId, action: 'print', ...more })
  expect(answer.status).toBe(201)
  return answer.body.id
}
const statusOf = async (id: string): Promise<string> => (await server.api.get(`/commands/${id}`)).body.status
const returnCode = async (clientId: string, password: string): Promise<number> => {
  const device = await connectDevice(server, { clientId, password })
  device.drop()
  return device.returnCode
}

/** Each column of each table that holds this text, or these bytes. */
async function columnsWith(secret: string): Promise<string[]> {
  const columns = await server.sql<{ table: string; column: string }>(`
    select table_name as table, column_name as column from information_schema.columns
    where table_schema = 'public' and data_type in ('text', 'bytea', 'json', 'jsonb', 'ARRAY', 'character varying')`)
  expect(columns.length).toBeGreaterThan(20)
  const found: string[] = []
  for (const { table, column } of columns) {
    const hits = await server.sql(
      `select 1 from "${table}" where position($1 in "${column}"::text) > 0 or position($2 in "${column}"::text) > 0 limit 1`,
      [secret, Buffer.from(secret).toString('hex')],
    )
    if (hits.length > 0) found.push(`${table}.${column}`)
  }
  return found
}

describe('registering', () => {
  test('answers the client and its key, with everything that was given', async () => {
    const answer = await server.api.post('/clients', {
      id: 'new-1',
      name: 'Tür 1 🚪',
      zones: ['B', 'A', 'A'],
      maxInFlight: 3,
      metadata: { floor: 2, tags: ['x'] },
    })
    expect(answer.status).toBe(201)
    expect(answer.headers.get('location')).toBe('/api/clients/new-1')
    expect(answer.body.client).toMatchObject({
      id: 'new-1',
      name: 'Tür 1 🚪',
      zones: ['A', 'B'],
      presence: 'offline',
      disabled: false,
      reported: null,
      maxInFlight: 3,
      metadata: { floor: 2, tags: ['x'] },
    })
    expect((await server.api.get('/clients/new-1')).body).toEqual(answer.body.client)
  })

  test('has defaults: the id as name, no zones, the window of the settings', async () => {
    await create('new-2')
    expect((await server.api.get('/clients/new-2')).body).toMatchObject({
      name: 'new-2',
      zones: [],
      maxInFlight: 8,
      metadata: {},
    })
  })

  test('an id that is taken is CONFLICT, and its key stays', async () => {
    const key = await create('taken')
    expectProblem(await server.api.post('/clients', { id: 'taken', name: 'other' }), 409, 'CONFLICT')
    expect((await server.api.get('/clients/taken')).body.name).toBe('taken')
    expect(await returnCode('taken', key)).toBe(0)
  })

  test('of 10 registrations of one id at once, one wins', async () => {
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, index) => server.api.post('/clients', { id: 'race', zones: [`z${index}`] })),
    )
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(9).fill(409)])
    const winner = answers.find(({ status }) => status === 201)
    expect((await server.api.get('/clients/race')).body).toEqual(winner?.body.client)
    expect(await returnCode('race', winner?.body.clientKey)).toBe(0)
  })

  test('shows the key once: only its SHA-256 is kept, and no log line has it', async () => {
    const key = await create('secret')
    expect(await returnCode('secret', key)).toBe(0)
    expect(await returnCode('secret', `${key}x`)).toBe(4)
    const { clientKey: second } = (await server.api.post('/clients/secret/rotate-key')).body
    expect(await returnCode('secret', second)).toBe(0)
    for (const shown of [key, second]) {
      expect(await columnsWith(shown)).toEqual([])
      expect(JSON.stringify(server.logs)).not.toContain(shown)
      for (const path of ['/clients/secret', '/clients', '/clients/secret/queue']) {
        expect(JSON.stringify((await server.api.get(path)).body)).not.toContain(shown)
      }
    }
    const [row] = await server.sql<{ key_hash: Buffer }>(`select key_hash from clients where id = 'secret'`)
    expect(row?.key_hash).toEqual(createHash('sha256').update(second).digest())
    expect(await columnsWith(ADMIN_TOKEN)).toEqual([])
    expect(JSON.stringify(server.logs)).not.toContain(ADMIN_TOKEN)
  })

  test.each(['constructor', 'toString', 'hasOwnProperty', 'valueOf'])(
    'an id like a member of every object (%s) is one like any other',
    async (id) => {
      const device = await startDevice(server, id)
      const commandId = await send(id)
      const { messageId, payload } = await device.nextCommand()
      expect(payload.id).toBe(commandId)
      device.ack(messageId)
      await device.report(commandId, { status: 'completed' })
      expect(await statusOf(commandId)).toBe('completed')
      await device.end()
    },
  )
})

describe('changing', () => {
  test('only what is given changes', async () => {
    await create('patch', { name: 'before', zones: ['A'], maxInFlight: 2, metadata: { a: 1 } })
    const patch = (body: unknown) => server.api.send('PATCH', '/clients/patch', body)
    expect(await patch({ name: 'after' })).toMatchObject({
      status: 200,
      body: { name: 'after', zones: ['A'], maxInFlight: 2, metadata: { a: 1 } },
    })
    expect((await patch({ zones: ['P2', 'P1', 'P2'] })).body).toMatchObject({ name: 'after', zones: ['P1', 'P2'] })
    expect((await server.api.get('/clients?zone=P1')).body.items).toHaveLength(1)
    expect((await patch({ zones: [], metadata: { b: 2 }, maxInFlight: 5 })).body).toMatchObject({
      zones: [],
      metadata: { b: 2 },
      maxInFlight: 5,
    })
    expect((await server.api.get('/clients?zone=P1')).body.items).toEqual([])
  })

  test('a live device is told its zones and window at once', async () => {
    const device = await startDevice(server, 'told', { zones: ['A'], maxInFlight: 2 })
    const topic = `${ROOT}/clients/told/config`
    await device.subscribe(topic)
    await until(() => device.received(topic).length === 1, 'the retained config')
    await server.api.send('PATCH', '/clients/told', { zones: ['B', 'C'], maxInFlight: 4 })
    await until(() => device.received(topic).length === 2, 'the new config')
    expect(device.received(topic).map(({ payload }) => payload)).toEqual([
      { zones: ['A'], maxInFlight: 2 },
      { zones: ['B', 'C'], maxInFlight: 4 },
    ])
    await device.end()
  })

  test('a wider window lets waiting work out at once', async () => {
    const device = await startDevice(server, 'window', { maxInFlight: 1 })
    const [first, second] = [await send('window'), await send('window')]
    device.ack((await device.nextCommand()).messageId)
    await until(async () => (await statusOf(first)) === 'delivered')
    expect(await statusOf(second)).toBe('pending')
    await server.api.send('PATCH', '/clients/window', { maxInFlight: 2 })
    expect((await device.nextCommand()).payload.id).toBe(second)
    await device.end()
  })
})

describe('disabling', () => {
  test('closes the live connections, refuses new ones with 5 and new commands, until it is enabled', async () => {
    const device = await startDevice(server, 'dis')
    const reporter = await connectDevice(server, { clientId: 'dis~sh', username: 'dis', password: device.clientKey })
    expect(reporter.returnCode).toBe(0)
    expect(await server.api.post('/clients/dis/disable')).toMatchObject({ status: 200, body: { disabled: true } })
    await device.whenClosed()
    await reporter.whenClosed()
    expect(await returnCode('dis', device.clientKey)).toBe(5)
    expect(await returnCode('dis', 'sbk_wrong')).toBe(4)
    expectProblem(await server.api.post('/commands', { clientId: 'dis', action: 'print' }), 403, 'CLIENT_DISABLED')
    await until(async () => (await server.api.get('/clients/dis')).body.presence === 'offline', 'offline')
    expect(await server.api.post('/clients/dis/enable')).toMatchObject({ status: 200, body: { disabled: false } })
    expect(await returnCode('dis', device.clientKey)).toBe(0)
    await send('dis')
  })

  test('keeps what was handed over for its report, and what waits', async () => {
    const device = await startDevice(server, 'keep', { maxInFlight: 1 })
    await device.publish(`${ROOT}/clients/keep/status`, { state: 'online', journalId: 'j1' })
    const [handed, waiting] = [await send('keep'), await send('keep')]
    device.ack((await device.nextCommand()).messageId)
    await until(async () => (await statusOf(handed)) === 'delivered')
    await server.api.post('/clients/keep/disable')
    await device.whenClosed()
    expect([await statusOf(handed), await statusOf(waiting)]).toEqual(['delivered', 'pending'])
    await server.api.post('/clients/keep/enable')
    const again = await connectDevice(server, { clientId: 'keep', password: device.clientKey })
    await again.publish(`${ROOT}/clients/keep/status`, { state: 'online', journalId: 'j1' })
    await again.report(handed, { status: 'completed' })
    await again.subscribe(`${ROOT}/clients/keep/commands`)
    await until(
      () => again.received().some(({ payload }) => payload.id === waiting),
      'the waiting command after the report',
    )
    expect(await statusOf(handed)).toBe('completed')
    await again.end()
  })

  test('twice is as once', async () => {
    await create('twice')
    for (const path of ['disable', 'disable', 'enable', 'enable']) {
      expect((await server.api.post(`/clients/twice/${path}`)).status).toBe(200)
    }
  })
})

test('rotating the key closes the connections that used the old one, which gets 4 from then on', async () => {
  const device = await startDevice(server, 'rotate')
  const reporter = await connectDevice(server, {
    clientId: 'rotate~sh',
    username: 'rotate',
    password: device.clientKey,
  })
  const rotated = await server.api.post('/clients/rotate/rotate-key')
  expect(rotated).toMatchObject({ status: 200, body: { clientKey: expect.stringMatching(/^sbk_[\w-]{43}$/) } })
  expect(rotated.body.clientKey).not.toBe(device.clientKey)
  await device.whenClosed()
  await reporter.whenClosed()
  expect(await returnCode('rotate', device.clientKey)).toBe(4)
  expect(await returnCode('rotate', rotated.body.clientKey)).toBe(0)
})

describe('deleting', () => {
  test('ends the connections, then the client is not there, and its work is settled truthfully', async () => {
    const device = await startDevice(server, 'del', { maxInFlight: 3, zones: ['Z'] })
    const take = async (): Promise<void> => device.ack((await device.nextCommand()).messageId)
    const done = await send('del')
    await take()
    await device.report(done, { status: 'completed' })
    const running = await send('del')
    await take()
    await device.report(running, { status: 'running' })
    const delivered = await send('del')
    await take()
    const queued = await send('del')
    await device.nextCommand()
    await until(async () => (await statusOf(delivered)) === 'delivered')
    const pending = await send('del')
    expect(await statusOf(pending)).toBe('pending')

    const deleted = await server.api.send('DELETE', '/clients/del')
    expect(deleted).toMatchObject({ status: 204, body: undefined })
    await device.whenClosed()
    expect(await Promise.all([done, running, delivered, queued, pending].map(statusOf))).toEqual([
      'completed',
      'outcome_unknown',
      'outcome_unknown',
      'outcome_unknown',
      'cancelled',
    ])
    for (const [method, path, body] of [
      ['GET', '/clients/del'],
      ['PATCH', '/clients/del', { name: 'x' }],
      ['DELETE', '/clients/del'],
      ['POST', '/clients/del/disable'],
      ['POST', '/clients/del/rotate-key'],
      ['GET', '/clients/del/queue'],
      ['POST', '/commands', { clientId: 'del', action: 'print' }],
    ] as const) {
      expectProblem(await server.api.send(method, path, body), 404, 'NOT_FOUND')
    }
    expect((await server.api.get('/clients?zone=Z')).body.items).toEqual([])
    expect((await server.api.get('/clients?q=del')).body.items).toEqual([])
    expect(await returnCode('del', device.clientKey)).toBe(4)
  })

  test('leaves the history readable', async () => {
    await create('past')
    const id = await send('past', { payload: { copies: 2 } })
    await server.api.send('DELETE', '/clients/past')
    expect((await server.api.get(`/commands/${id}`)).body).toMatchObject({
      status: 'cancelled',
      payload: { copies: 2 },
    })
    expect((await server.api.get('/commands?clientId=past')).body.items).toHaveLength(1)
    expect((await server.api.get(`/commands/${id}/executions`)).body.items).toMatchObject([{ clientId: 'past' }])
    const types = (await server.api.get(`/commands/${id}/timeline`)).body.items.map(
      ({ type }: { type: string }) => type,
    )
    expect(types).toEqual(['command.created', 'execution.cancelled'])
  })

  test('frees the id: a new client has a new key and nothing of the old one', async () => {
    const old = await startDevice(server, 'again', {
      name: 'old',
      zones: ['old'],
      metadata: { old: true },
      maxInFlight: 1,
    })
    await old.publish(`${ROOT}/clients/again/status`, { state: 'online', version: '1' }, { retain: true })
    await send('again')
    await send('again')
    await server.api.post('/clients/again/disable')
    await old.whenClosed()
    await server.api.send('DELETE', '/clients/again')
    const created = await server.api.post('/clients', { id: 'again' })
    expect(created).toMatchObject({
      status: 201,
      body: { client: { name: 'again', zones: [], metadata: {}, reported: null, disabled: false, maxInFlight: 8 } },
    })
    expect(created.body.client.lastSeenAt).toBeUndefined()
    expect((await server.api.get('/clients/again/queue')).body.items).toEqual([])
    expect(await returnCode('again', old.clientKey)).toBe(4)
    const device = await connectDevice(server, { clientId: 'again', password: created.body.clientKey })
    await device.subscribe(`${ROOT}/clients/again/commands`)
    const fresh = await send('again')
    expect((await device.nextCommand()).payload.id).toBe(fresh)
    await device.end()
  })

  test('leaves no command waiting for ever, though it was being stored at that moment', async () => {
    await create('rushed')
    const other = new pg.Client({ connectionString: server.database_.url })
    await other.connect()
    // Somebody else's use of the same key, not committed: the command waits for it when its client has been judged.
    await other.query('begin')
    await other.query(`
      insert into idempotency_keys (principal_id, key, request_hash, command_id, created_at)
      select id, 'rushed', '', gen_random_uuid(), clock_timestamp() from principals where name = 'admin'`)
    const waiting = (count: number) =>
      until(async () => {
        const rows = await server.sql(
          `select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
        )
        return rows.length >= count
      }, `${count} statements wait`)
    const command = { clientId: 'rushed', action: 'print' }
    const creating = server.api.post('/commands', command, { 'Idempotency-Key': 'rushed' })
    await waiting(1)
    const deleting = server.api.send('DELETE', '/clients/rushed')
    await Promise.race([deleting, waiting(2)])
    await other.query('rollback')
    await other.end()
    expect((await deleting).status).toBe(204)
    const created = await creating
    if (created.status === 201) expect(await statusOf(created.body.id)).toBe('cancelled')
    else expectProblem(created, 404, 'NOT_FOUND')
  })

  test('leaves nothing retained, though the client was online', async () => {
    const gone = Array.from({ length: 10 }, (_, index) => `gone-${index}`)
    await Promise.all(
      gone.map(async (id) => {
        const device = await startDevice(server, id)
        await device.publish(`${ROOT}/clients/${id}/status`, { state: 'online' }, { retain: true })
        await server.api.send('DELETE', `/clients/${id}`)
        await device.whenClosed()
      }),
    )
    const ended = () => server.sql(`select 1 from events where type = 'client.offline' and client_id like 'gone-%'`)
    await until(async () => (await ended()).length === gone.length, 'their sessions are over')
    await create('zz-last')
    const technician = await connectDevice(server, { clientId: 'tech', username: 'admin', password: ADMIN_TOKEN })
    await technician.subscribe(`${ROOT}/#`)
    await until(() => technician.received(`${ROOT}/clients/zz-last/config`).length > 0, 'the last retained message')
    expect(
      technician
        .received()
        .map(({ topic }) => topic)
        .filter((topic) => topic.includes('/gone-')),
    ).toEqual([])
    await technician.end()
  })
})

test('the queue of a client is what is in flight, then what waits in the order in which it goes out', async () => {
  const device = await startDevice(server, 'queue', { maxInFlight: 1 })
  const flying = await send('queue', { priority: 1 })
  await device.nextCommand()
  await until(async () => (await statusOf(flying)) === 'queued')
  const low = await send('queue', { priority: 1, action: 'low' })
  const older = await send('queue')
  const newer = await send('queue')
  const high = await send('queue', { priority: 9 })
  const settled = await send('queue')
  await server.api.post(`/commands/${settled}/cancel`)
  const { items } = (await server.api.get('/clients/queue/queue')).body
  expect(items.map(({ commandId }: { commandId: string }) => commandId)).toEqual([flying, high, older, newer, low])
  expect(items[0]).toMatchObject({ status: 'queued', attempt: 1, priority: 1, action: 'print' })
  expect(items[4]).toMatchObject({ status: 'pending', priority: 1, action: 'low' })
  const urgent = await send('queue', { priority: 10 })
  await device.nextCommand()
  const after = (await server.api.get('/clients/queue/queue')).body.items
  expect(after.slice(0, 2).map(({ commandId }: { commandId: string }) => commandId)).toEqual([urgent, flying])
  await device.end()
})
