import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { differing } from '../../db/audit.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { client, grant, principal } from './support/principals.ts'
import { EXPECTATIONS, type Expectation, headOf, ROUTES, subjectIn } from './support/routes.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

const audit = async (query = '') => (await server.api.get(`/audit${query}`)).body.items
const rowsOf = (requestId: string) => server.sql('select * from audit where request_id = $1', [requestId])
const auditRows = async () => (await server.sql<{ n: number }>('select count(*)::int as n from audit'))[0]?.n
const mutating = ROUTES.filter(({ name, method }) => method !== 'get' && EXPECTATIONS[name]?.allowed !== 'its client')
/** Who may not: the role, and nobody. */
const refusals = ({ allowed }: Expectation): number[] =>
  allowed === 'anyone' ? [] : allowed.includes('viewer') ? [401] : [401, 403]

describe.each(mutating)('$name', ({ name, method }) => {
  const route = EXPECTATIONS[name] as Expectation

  test('a success leaves exactly what the table says', async () => {
    const admin = await principal(server, 'admin')
    const subject = await subjectIn(server, 'A')
    const request = await route.request(server, subject)
    const { status, requestId } = await headOf(server, admin.token, method, request)
    expect(status).toBe(route.status)
    const by = route.allowed === 'anyone' ? {} : { principal: admin.name }
    const rows = await rowsOf(requestId)
    if (route.record && 'audit' in route.record) {
      expect(rows).toMatchObject([{ kind: route.record.audit, ...by, address: '127.0.0.1' }])
    } else {
      expect(rows).toEqual([])
    }
    if (route.record && 'event' in route.record) {
      const events = await server.sql<{ data: Record<string, string> }>(
        `select data from events where type = $1 and coalesce(data ->> 'by', data ->> 'createdBy') = $2`,
        [route.record.event, admin.name],
      )
      expect(events).toHaveLength(1)
    }
  })

  test('a failure leaves nothing', async () => {
    const viewer = await principal(server, 'viewer')
    const request = await route.request(server, await subjectIn(server, 'A'))
    const failing = await route.failing?.(server)
    const before = await auditRows()
    for (const status of refusals(route)) {
      const token = status === 403 ? viewer.token : undefined
      expect((await headOf(server, token, method, request)).status).toBe(status)
    }
    if (failing) {
      const answer = await server.api.send(method.toUpperCase(), failing.path, failing.body)
      expect(answer.status, JSON.stringify(answer.body)).toBeGreaterThanOrEqual(400)
    }
    expect(await auditRows()).toBe(before)
  })
})

test('every route that changes something has a record of it and a way to fail', () => {
  const without = mutating.filter(({ name }) => !EXPECTATIONS[name]?.record || !EXPECTATIONS[name]?.failing)
  // A preview changes nothing, and whoever comes with a token has no session to end.
  expect(without.map(({ name }) => name)).toEqual(['post /commands/preview', 'delete /session'])
})

test('the change and its row are one: without the row there is no change', async () => {
  await client(server, 'atomic')
  await server.sql(`alter table audit add constraint closed check (subject <> 'client:atomic') not valid`)
  const answer = await server.api.send('PATCH', '/clients/atomic', { name: 'renamed' })
  expect(answer).toMatchObject({ status: 500, body: { code: 'INTERNAL' } })
  await server.sql('alter table audit drop constraint closed')
  expect((await server.api.get('/clients/atomic')).body.name).toBe('atomic')
})

test('says what differs, before and after, and no secret', async () => {
  const key = await client(server, 'told', ['A'])
  await server.api.send('PATCH', '/clients/told', { name: 'Renamed', metadata: { floor: 2 } })
  await server.api.send('PUT', '/zones/B/clients/told')
  await server.api.post('/clients/told/disable')
  const rotated = await server.api.post('/clients/told/rotate-key', { graceSeconds: 60 })
  await server.api.send('DELETE', '/clients/told')
  const items = await audit('?subject=client:told')
  const first = { name: 'told', zones: ['A'], disabled: false, maxInFlight: 8, metadata: {} }
  expect(items.map(({ kind, before, after }: Record<string, unknown>) => ({ kind, before, after }))).toEqual([
    {
      kind: 'client.deleted',
      before: { ...first, name: 'Renamed', metadata: { floor: 2 }, zones: ['A', 'B'], disabled: true },
      after: null,
    },
    { kind: 'client.key_rotated', before: {}, after: { graceSeconds: 60 } },
    { kind: 'client.disabled', before: { disabled: false }, after: { disabled: true } },
    { kind: 'zone.joined', before: { zones: ['A'] }, after: { zones: ['A', 'B'] } },
    {
      kind: 'client.updated',
      before: { name: 'told', metadata: {} },
      after: { name: 'Renamed', metadata: { floor: 2 } },
    },
    { kind: 'client.created', before: null, after: first },
  ])
  const everything = JSON.stringify(await server.sql('select * from audit'))
  for (const secret of [key, rotated.body.clientKey]) expect(everything).not.toContain(secret)
  expect(everything).not.toMatch(/sb[ekt]_/)
})

test('ten changes of one thing at once: each one begins where the one before it ended', async () => {
  await client(server, 'busy')
  await Promise.all(
    Array.from({ length: 10 }, (_, index) => server.api.send('PATCH', '/clients/busy', { name: `name ${index}` })),
  )
  const items = (await audit('?subject=client:busy&kind=client.updated')).reverse()
  let name = 'busy'
  for (const { before, after } of items) {
    expect(before).toEqual({ name })
    name = after.name
  }
  expect((await server.api.get('/clients/busy')).body.name).toBe(name)
})

test('is filtered by principal, kind, subject and time, and read page by page', async () => {
  const admin = await principal(server, 'admin')
  const since = new Date().toISOString()
  for (const id of ['f1', 'f2', 'f3']) await admin.api.post('/clients', { id })
  await admin.api.send('DELETE', '/clients/f2')
  const mine = `?principal=${admin.name}`
  expect((await audit(mine)).map(({ subject }: { subject: string }) => subject)).toEqual(
    ['f2', 'f3', 'f2', 'f1'].map((id) => `client:${id}`),
  )
  expect(await audit(`${mine}&kind=client.deleted`)).toHaveLength(1)
  expect(await audit(`${mine}&subject=client:f2`)).toHaveLength(2)
  expect(await audit(`${mine}&until=${since}`)).toEqual([])
  expect(await audit(`${mine}&since=${since}`)).toHaveLength(4)
  const { body } = await server.api.get(`/audit${mine}&limit=3`)
  expect(body.items).toHaveLength(3)
  expect((await server.api.get(`/audit${mine}&limit=3&cursor=${body.nextCursor}`)).body).toMatchObject({
    items: [{ subject: 'client:f1' }],
    nextCursor: null,
  })
  expect((await server.api.get('/audit?kind=nothing')).status).toBe(400)
  expect((await server.api.get('/audit?subject=nothing')).status).toBe(400)
  expect((await server.api.get(`/audit?cursor=${Buffer.from('x').toString('base64url')}`)).status).toBe(400)
})

test('the first token of the server is in it, as a change of the server itself', async () => {
  const [first] = await server.sql('select kind, principal, address, request_id, after from audit order by id limit 1')
  expect(first).toEqual({
    kind: 'token.created',
    principal: null,
    address: null,
    request_id: null,
    after: { principal: 'admin', name: 'bootstrap', expiresAt: null },
  })
})

test.each([
  [null, { a: 1 }, null, { a: 1 }],
  [{ a: 1 }, null, { a: 1 }, null],
  [{ a: 1, b: [1, { c: 2 }] }, { a: 1, b: [1, { c: 2 }] }, {}, {}],
  [{ a: 1, b: 1 }, { a: 2, b: 1 }, { a: 1 }, { a: 2 }],
  [{ a: 1 }, { b: 1 }, { a: 1 }, { b: 1 }],
])('of %j and %j only what differs is kept', (before, after, expectedBefore, expectedAfter) => {
  expect(differing(before, after)).toEqual({ before: expectedBefore, after: expectedAfter })
})

test('grants are kept whole', async () => {
  const operator = await principal(server, 'operator', [grant('*')])
  const next = [grant({ zone: 'A' }, { actions: ['print'] })]
  await server.api.send('PUT', `/principals/${operator.id}/grants`, next)
  const [latest] = await audit(`?subject=principal:${operator.name}&kind=grants.replaced`)
  expect(latest).toMatchObject({ before: { grants: [grant('*')] }, after: { grants: next } })
})
