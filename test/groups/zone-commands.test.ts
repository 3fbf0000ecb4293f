import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connectDevice, type Device, ROOT } from '../support/device.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

let server: TestServer
let watcher: Device

beforeAll(async () => {
  server = await startServer()
  watcher = await connectDevice(server, { clientId: 'watcher', username: 'admin', password: ADMIN_TOKEN })
  await watcher.subscribe(`${ROOT}/#`, 1)
})
afterAll(() => server.stop())

/** A client of a zone that acts like one: own, zone and broadcast topics, and a PUBACK for each command. */
async function join(clientId: string, zones: string[]): Promise<{ key: string; connect(): Promise<Device> }> {
  const { body } = await server.api.post('/clients', { id: clientId, zones })
  const key = body.clientKey as string
  return {
    key,
    async connect() {
      const device = await connectDevice(server, { clientId, password: key })
      await device.subscribe([...zones.map((zone) => `${ROOT}/zones/${zone}/commands`), `${ROOT}/broadcast/commands`])
      await device.subscribe(`${ROOT}/clients/${clientId}/commands`)
      return device
    },
  }
}

const commandsAt = (device: Device) => device.received().filter(({ payload }) => payload.type === 'command')
const publishesOf = (id: string) =>
  watcher.received().filter(({ payload }) => payload.type === 'command' && payload.id === id)

async function finish(device: Device, id: string): Promise<void> {
  const message = await until(
    () => commandsAt(device).find(({ payload }) => payload.id === id),
    `command at ${device.clientId}`,
  )
  device.ack(message.messageId as number)
  await device.report(id, { status: 'completed', attempt: message.payload.attempt })
}

const countsOf = async (id: string) => (await server.api.get(`/commands/${id}`)).body.counts

test('one publish reaches exactly the connected clients of the zone; the others get it later, or say why not', async () => {
  const [a1, a2, a3, a4] = await Promise.all(['a1', 'a2', 'a3', 'a4'].map((id) => join(id, ['A'])))
  const b1 = await join('b1', ['B'])
  const online = await Promise.all([a1, a2].map((client) => client?.connect() as Promise<Device>))
  const other = await b1.connect()
  await server.api.post('/clients/a4/disable')

  const { status, body } = await server.api.post('/commands', { zone: 'A', action: 'lock' })
  expect(status).toBe(201)
  expect(body).toMatchObject({
    target: { kind: 'zone', zone: 'A' },
    total: 3,
    counts: { pending: 3 },
    excluded: [{ clientId: 'a4', reason: 'disabled' }],
  })
  const id = body.id as string
  await until(() => online.every((device) => commandsAt(device).length === 1), 'both online clients have it')
  expect(publishesOf(id).map(({ topic }) => topic)).toEqual([`${ROOT}/zones/A/commands`])
  await until(
    async () =>
      JSON.stringify(await countsOf(id)) === JSON.stringify({ queued: 2, pending: 1 }) ||
      (await countsOf(id)).queued === 2,
    'counts',
  )
  expect(await countsOf(id)).toEqual({ queued: 2, pending: 1 })

  // Whoever joins the zone now is not meant.
  const late = await (await join('a5', ['A'])).connect()
  await Promise.all(online.map((device) => finish(device, id)))
  await until(async () => (await countsOf(id)).completed === 2, 'two completed')
  expect((await server.api.get(`/commands/${id}`)).body.status).toBe('running')

  const third = (await a3?.connect()) as Device
  await finish(third, id)
  expect(publishesOf(id).map(({ topic }) => topic)).toEqual([`${ROOT}/zones/A/commands`, `${ROOT}/clients/a3/commands`])
  const done = (await server.api.get(`/commands/${id}`)).body
  expect(done).toMatchObject({ status: 'completed', counts: { completed: 3 } })
  expect(commandsAt(late)).toEqual([])
  expect(commandsAt(other)).toEqual([])
  expect(a4).toBeDefined()
  for (const device of [...online, third, late, other]) device.drop()
})

test('a client that left the zone before it was sent is served on its own topic', async () => {
  const client = await join('m1', ['M'])
  const { body } = await server.api.post('/commands', { zone: 'M', action: 'lock' })
  await server.api.send('DELETE', '/zones/M/clients/m1')
  const device = await connectDevice(server, { clientId: 'm1', password: client.key })
  expect(await device.subscribe(`${ROOT}/zones/M/commands`)).toEqual([128])
  await device.subscribe(`${ROOT}/clients/m1/commands`)
  await finish(device, body.id)
  expect(publishesOf(body.id).map(({ topic }) => topic)).toEqual([`${ROOT}/clients/m1/commands`])
  device.drop()
})

test('a zone that a connected client loses is unsubscribed at once, one that it gains is in its config', async () => {
  const client = await join('z1', ['Z1'])
  const device = await client.connect()
  await device.subscribe(`${ROOT}/clients/z1/config`)
  await server.api.send('PUT', '/zones/Z2/clients/z1')
  await until(
    () =>
      device.received(`${ROOT}/clients/z1/config`).some(({ payload }) => (payload.zones as string[]).includes('Z2')),
    'config with Z2',
  )
  expect(await device.subscribe(`${ROOT}/zones/Z2/commands`)).toEqual([1])
  await server.api.send('DELETE', '/zones/Z1/clients/z1')
  const { body } = await server.api.post('/commands', { zone: 'Z1', action: 'lock' })
  expect(body).toMatchObject({ code: 'NO_TARGETS', status: 409 })
  const second = await server.api.post('/commands', { zone: 'Z2', action: 'lock' })
  await finish(device, second.body.id)
  expect(commandsAt(device).map(({ topic }) => topic)).toEqual([`${ROOT}/zones/Z2/commands`])
  device.drop()
})

test('a full window keeps a client out of the shared publish; it gets the command on its own topic later', async () => {
  const [free, full] = await Promise.all([join('w1', ['W']), join('w2', ['W'])])
  await server.api.send('PATCH', '/clients/w2', { maxInFlight: 1 })
  const [one, two] = await Promise.all([free.connect(), full.connect()])
  const blocking = (await server.api.post('/commands', { clientId: 'w2', action: 'hold' })).body.id
  const blocked = await two.nextCommand()
  const group = (await server.api.post('/commands', { zone: 'W', action: 'lock' })).body.id
  await finish(one, group)
  expect(commandsAt(two).map(({ payload }) => payload.id)).toEqual([blocking])
  two.ack(blocked.messageId)
  await two.report(blocking, { status: 'completed', attempt: 1 })
  await finish(two, group)
  expect(publishesOf(group).map(({ topic }) => topic)).toEqual([
    `${ROOT}/zones/W/commands`,
    `${ROOT}/clients/w2/commands`,
  ])
  one.drop()
  two.drop()
})

test('an unknown zone has no targets, and nothing is stored', async () => {
  const before = (await server.sql('select count(*) as n from commands'))[0]?.n
  expect((await server.api.post('/commands', { zone: 'nowhere', action: 'lock' })).body).toMatchObject({
    code: 'NO_TARGETS',
  })
  expect((await server.sql('select count(*) as n from commands'))[0]?.n).toBe(before)
})

test('preview, a change of the zone, and the send with its hash is refused with the difference', async () => {
  await Promise.all(['p1', 'p2'].map((id) => join(id, ['P'])))
  const preview = (await server.api.post('/commands/preview', { zone: 'P', action: 'lock' })).body
  expect(preview).toMatchObject({
    total: 2,
    online: 0,
    excluded: [],
    targets: [{ clientId: 'p1', presence: 'offline', pending: 0 }, { clientId: 'p2' }],
  })
  await join('p3', ['P'])
  await server.api.send('DELETE', '/zones/P/clients/p1')
  const before = (await server.sql('select count(*) as n from commands'))[0]?.n
  const refused = await server.api.post('/commands', { zone: 'P', action: 'lock', expectedTargets: preview.hash })
  expect(refused.body).toMatchObject({ status: 409, code: 'TARGETS_CHANGED', added: ['p3'], removed: ['p1'] })
  expect((await server.sql('select count(*) as n from commands'))[0]?.n).toBe(before)
  const again = (await server.api.post('/commands/preview', { zone: 'P', action: 'lock' })).body
  expect((await server.api.post('/commands', { zone: 'P', action: 'lock', expectedTargets: again.hash })).status).toBe(
    201,
  )
})

test('a broadcast reaches every connected client in one publish, and can be cancelled for those who have not got it', async () => {
  const clients = await Promise.all(['x1', 'x2', 'x3'].map((id) => join(id, [])))
  const online = await Promise.all(clients.slice(0, 2).map((client) => client.connect()))
  const { body } = await server.api.post('/commands', { broadcast: true, action: 'lock' })
  await Promise.all(online.map((device) => finish(device, body.id)))
  expect(publishesOf(body.id).map(({ topic }) => topic)).toEqual([`${ROOT}/broadcast/commands`])
  const outcome = (await server.api.post(`/commands/${body.id}/cancel`, {})).body
  expect(outcome).toEqual({ cancelled: body.total - 2, requested: 0, tooLate: 2 })
  const ended = (await server.api.get(`/commands/${body.id}`)).body
  expect(ended).toMatchObject({ status: 'partially_failed', counts: { completed: 2, cancelled: body.total - 2 } })
  const retried = (await server.api.post(`/commands/${body.id}/retry`, { clientIds: ['x3', 'x1'] })).body
  expect(retried).toEqual({ retried: 0, skipped: 2 })
  for (const device of online) device.drop()
})

test('what failed can be retried, with a new attempt on the own topic; what is pending can be changed', async () => {
  const client = await join('r1', ['R'])
  const device = await client.connect()
  const { body } = await server.api.post('/commands', { zone: 'R', action: 'lock' })
  const first = await until(() => commandsAt(device)[0], 'the command')
  device.ack(first.messageId as number)
  await device.report(body.id, { status: 'failed', attempt: 1, error: { code: 'E', message: 'no' } })
  device.drop()
  await until(async () => (await server.api.get('/clients/r1')).body.presence === 'offline', 'offline')
  expect((await server.api.post(`/commands/${body.id}/retry`, { ttlSeconds: 600 })).body).toEqual({
    retried: 1,
    skipped: 0,
  })
  expect((await server.api.send('PATCH', `/commands/${body.id}`, { priority: 9 })).body).toMatchObject({
    priority: 9,
    status: 'pending',
  })
  const again = await client.connect()
  const second = await again.nextCommand()
  expect(second.payload).toMatchObject({ id: body.id, attempt: 2, priority: 9 })
  expect((await server.api.send('PATCH', `/commands/${body.id}`, { priority: 1 })).body).toMatchObject({
    code: 'CONFLICT',
  })
  again.ack(second.messageId)
  await again.report(body.id, { status: 'completed', attempt: 2 })
  expect((await server.api.get(`/commands/${body.id}`)).body).toMatchObject({ status: 'completed', attempt: 2 })
  again.drop()
})

test("an unknown outcome ends by a principal's word, or by another run", async () => {
  const client = await join('u1', [])
  const lose = async () => {
    const device = await client.connect()
    const { body } = await server.api.post('/commands', { clientId: 'u1', action: 'print' })
    await until(() => commandsAt(device).length > 0, 'the command')
    device.drop()
    await until(
      async () => (await server.api.get(`/commands/${body.id}`)).body.status === 'outcome_unknown',
      'outcome_unknown',
    )
    return body.id as string
  }
  const resolve = (id: string, outcome: string) =>
    server.api.post(`/commands/${id}/executions/u1/resolve`, { outcome, note: 'looked at it' })
  const seen = await lose()
  expect((await resolve(seen, 'completed')).body).toMatchObject({ status: 'completed' })
  expect((await resolve(seen, 'failed')).body).toMatchObject({ code: 'CONFLICT' })
  const lost = await lose()
  expect((await resolve(lost, 'failed')).body).toMatchObject({
    status: 'failed',
    error: { code: 'RESOLVED', message: 'looked at it' },
  })
  const wanted = await lose()
  expect((await resolve(wanted, 'retry')).body).toMatchObject({ status: 'pending', attempt: 2 })
  const { items } = (await server.api.get(`/commands/${wanted}/timeline`)).body
  // The alert's opening and end come whenever they are noticed.
  const moves = items.filter(({ type }: { type: string }) => type.startsWith('execution.'))
  expect(moves.slice(-2)).toMatchObject([
    { type: 'execution.resolved', attempt: 1, data: { outcome: 'retry', note: 'looked at it', by: 'admin' } },
    { type: 'execution.retried', attempt: 2, data: { after: 'outcome_unknown', by: 'admin' } },
  ])
  // Only of what is unknown: a failure is known.
  for (const id of [wanted, lost]) expect((await resolve(id, 'retry')).body).toMatchObject({ code: 'CONFLICT' })
  expect((await server.api.get(`/commands/${lost}`)).body).toMatchObject({ status: 'failed', attempt: 1 })
  expect(
    (await server.api.post(`/commands/${wanted}/executions/nobody/resolve`, { outcome: 'failed', note: 'x' })).body,
  ).toMatchObject({ code: 'NOT_FOUND' })
})

test('a cancel between the claim and the publish: the client never gets the command, and it is cancelled', async () => {
  // Their ids differ in the last bit, so they are claimed in different lanes: one can wait while the other is claimed.
  const [free, held] = await Promise.all([join('lane-2', ['L']), join('lane-3', ['L'])])
  const [one, two] = await Promise.all([free.connect(), held.connect()])
  const blocker = new pg.Client({ connectionString: server.database_.url })
  await blocker.connect()
  await blocker.query("begin; select 1 from clients where id = 'lane-3' for no key update")
  const { body } = await server.api.post('/commands', { zone: 'L', action: 'lock' })
  const statusOf = async (id: string) =>
    (
      await server.sql<{ status: string }>('select status from executions where command_id = $1 and client_id = $2', [
        body.id,
        id,
      ])
    )[0]?.status
  await until(async () => (await statusOf('lane-2')) === 'queued', 'claimed')
  expect((await server.api.post(`/commands/${body.id}/cancel`, { clientIds: ['lane-2'] })).body).toMatchObject({
    requested: 1,
  })
  await blocker.query('commit')
  await blocker.end()
  await finish(two, body.id)
  await until(async () => (await statusOf('lane-2')) === 'cancelled', 'cancelled')
  await one.ping()
  expect(one.received().filter(({ payload }) => payload.id === body.id)).toEqual([])
  one.drop()
  two.drop()
})

test('a session that ends between the claim and the publish: the client never had the command, and gets it when it comes back', async () => {
  const [gone, held] = await Promise.all([join('lane-4', ['N']), join('lane-5', ['N'])])
  const [one, two] = await Promise.all([gone.connect(), held.connect()])
  const blocker = new pg.Client({ connectionString: server.database_.url })
  await blocker.connect()
  await blocker.query("begin; select 1 from clients where id = 'lane-5' for no key update")
  const { body } = await server.api.post('/commands', { zone: 'N', action: 'lock' })
  const executionOf = async (id: string) =>
    (
      await server.sql<{ status: string; handovers: unknown[] }>(
        'select status, handovers from executions where command_id = $1 and client_id = $2',
        [body.id, id],
      )
    )[0]
  await until(async () => (await executionOf('lane-4'))?.status === 'queued', 'claimed')
  one.drop()
  // It does not wait for the others of the group.
  await until(async () => (await server.api.get('/clients/lane-4')).body.presence === 'offline', 'offline')
  expect(await executionOf('lane-4')).toEqual({ status: 'pending', handovers: [] })
  await blocker.query('commit')
  await blocker.end()
  await finish(two, body.id)
  expect(commandsAt(one)).toEqual([])
  const again = await gone.connect()
  await finish(again, body.id)
  await until(async () => (await countsOf(body.id)).completed === 2, 'both completed')
  again.drop()
  two.drop()
})

test('what a deleted client left is nothing for a new client with its id', async () => {
  const old = await join('again', [])
  const device = await old.connect()
  const { body } = await server.api.post('/commands', { clientId: 'again', action: 'print' })
  await until(() => commandsAt(device).length === 1, 'the command')
  await server.api.send('DELETE', '/clients/again')
  await until(
    async () => (await server.api.get(`/commands/${body.id}`)).body.status === 'outcome_unknown',
    'outcome_unknown',
  )
  expect((await server.api.post(`/commands/${body.id}/retry`, {})).body).toEqual({ retried: 0, skipped: 0 })
  expect(
    (await server.api.post(`/commands/${body.id}/executions/again/resolve`, { outcome: 'retry', note: 'x' })).body,
  ).toMatchObject({ code: 'NOT_FOUND' })
  const fresh = await (await join('again', [])).connect()
  const next = await server.api.post('/commands', { clientId: 'again', action: 'print' })
  await finish(fresh, next.body.id)
  expect(commandsAt(fresh).map(({ payload }) => payload.id)).toEqual([next.body.id])
  fresh.drop()
})
