import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { principal } from '../access/support/principals.ts'
import { expectProblem } from '../api/support.ts'
import { createTestDatabase } from '../support/database.ts'
import { closeDatabase, reopenDatabase } from '../support/database-faults.ts'
import { connectDevice } from '../support/device.ts'
import { httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { enrolment, newKey, redeem, usesOf } from './support/codes.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000, ENROLMENT_TTL_SECONDS: 600 })
})
afterAll(() => server.stop())

const audit = async (query: string) => (await server.api.get(`/audit?${query}`)).body.items
/** Puts the end of an enrolment this far ahead, by the database's clock. */
const endsIn = (id: string, seconds: number) =>
  server.sql(`update enrolments set expires_at = clock_timestamp() + make_interval(secs => $2) where id = $1`, [
    id,
    seconds,
  ])

describe('an enrolment', () => {
  test('is made with a code that is shown once, and listed without it', async () => {
    const given = { name: 'dock 4', zones: ['B', 'A', 'B'], idPrefix: 'pda-', maxUses: 3, ttlSeconds: 60 }
    const before = Date.now()
    const { status, body } = await server.api.post('/enrolments', given)
    expect(status).toBe(201)
    expect(body.code).toMatch(/^sbe_[A-Za-z0-9_-]{43}$/)
    const { ttlSeconds: _, ...kept } = given
    expect(body.enrolment).toMatchObject({ ...kept, zones: ['A', 'B'], uses: 0, createdBy: 'admin' })
    const seconds = (Date.parse(body.enrolment.expiresAt) - before) / 1000
    expect(seconds).toBeGreaterThan(55)
    expect(seconds).toBeLessThan(75)
    const { items } = (await server.api.get('/enrolments?limit=200')).body
    expect(items).toContainEqual(body.enrolment)
    expect(JSON.stringify(items)).not.toContain('sbe_')
  })

  test('without anything: one client, in no zone, within ENROLMENT_TTL_SECONDS', async () => {
    const { body } = await server.api.post('/enrolments', {})
    expect(body.enrolment).toMatchObject({ name: '', zones: [], maxUses: 1, uses: 0 })
    expect(body.enrolment).not.toHaveProperty('idPrefix')
    const seconds = (Date.parse(body.enrolment.expiresAt) - Date.parse(body.enrolment.createdAt)) / 1000
    expect(seconds).toBeCloseTo(600, 1)
  })

  test('is kept as a hash, and is in no log line, event, audit row, security event or error', async () => {
    const { id, code } = await enrolment(server)
    const key = newKey()
    const answers = [
      await redeem(server, { code, clientId: 'no good' }),
      await redeem(server, { code: `${code}x` }),
      await redeem(server, { code, [code]: 1 }),
      await redeem(server, { code, clientId: code }),
      await httpClient(server.http, code).get('/clients'),
      await httpClient(server.http, undefined).post(`/enrolments/${code}`),
      await server.api.send('DELETE', `/enrolments/${code}`),
      await server.api.get(`/clients/${code}`),
    ]
    expect(answers.map(({ status }) => status)).toEqual([400, 401, 400, 400, 401, 404, 404, 404])
    await connectDevice(server, { clientId: code, username: code, password: code })
    expectProblem(await redeem(server, { code, clientKey: key, clientId: key }), 400, 'INVALID_INPUT')
    expect((await redeem(server, { code, clientKey: key })).status).toBe(201)
    answers.push(await redeem(server, { code }))
    await until(
      async () => (await server.sql('select 1 from security_events where subject = $1', [`enrolment:${id}`])).length,
      'the security event',
    )
    const tables = ['enrolments', 'clients', 'events', 'audit', 'security_events', 'alerts']
    const rows = await Promise.all(tables.map((table) => server.sql(`select * from ${table}`)))
    const kept = JSON.stringify([rows, server.logs])
    for (const secret of [code, key]) expect(kept).not.toContain(secret.slice(4, 40))
    expect(JSON.stringify(answers.map(({ body }) => body))).not.toContain(code.slice(4, 40))
  })

  test.each([
    [{ maxUses: 0 }],
    [{ maxUses: 1.5 }],
    [{ maxUses: 100_001 }],
    [{ maxUses: '3' }],
    [{ ttlSeconds: 0 }],
    [{ ttlSeconds: -1 }],
    [{ ttlSeconds: 31_536_001 }],
    [{ zones: ['no good'] }],
    [{ zones: 'A' }],
    [{ zones: Array.from({ length: 101 }, (_, index) => `z${index}`) }],
    [{ idPrefix: '' }],
    [{ idPrefix: '-x' }],
    [{ idPrefix: 'a/b' }],
    [{ idPrefix: 'x'.repeat(49) }],
    [{ name: '' }],
    [{ name: 'x'.repeat(201) }],
    [{ name: 'a\u0000b' }],
    [{ code: 'sbe_mine' }],
    [[]],
    ['text'],
  ])('of %j is INVALID_INPUT', async (body) => {
    expectProblem(await server.api.post('/enrolments', JSON.stringify(body)), 400, 'INVALID_INPUT')
  })

  test('is read page by page, oldest first', async () => {
    const made = [await enrolment(server), await enrolment(server)]
    const all: string[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { body } = await server.api.get(`/enrolments?limit=1${cursor && `&cursor=${cursor}`}`)
      all.push(...body.items.map(({ id }: { id: string }) => id))
      cursor = body.nextCursor
    }
    expect(all).toEqual([...new Set(all)].sort())
    expect(all).toEqual(expect.arrayContaining(made.map(({ id }) => id)))
  })
})

describe('a redemption', () => {
  test('makes a client in the zones, whose key works at both doors', async () => {
    const { id, code } = await enrolment(server, { zones: ['E1', 'E2'] })
    const { status, headers, body } = await redeem(server, { code })
    expect(status).toBe(201)
    expect(body.client).toMatchObject({ zones: ['E1', 'E2'], presence: 'offline', disabled: false })
    expect(body.client.id).toMatch(/^device-[0-9a-f]{12}$/)
    expect(headers.get('location')).toBe(`/api/clients/${body.client.id}`)
    expect((await server.api.get(`/clients/${body.client.id}`)).body).toEqual(body.client)
    const device = await connectDevice(server, { clientId: body.client.id, password: body.clientKey })
    expect(device.returnCode).toBe(0)
    await device.end()
    const ping = await httpClient(server.http, body.clientKey).post(`/clients/${body.client.id}/ping`)
    expect(ping.status).toBe(204)
    expect(await usesOf(server, id)).toEqual({ uses: 1, clients: 1 })
  })

  test('gives the id that the device asks for, or one that begins as the enrolment says', async () => {
    const open = await enrolment(server, { maxUses: 2 })
    expect((await redeem(server, { code: open.code, clientId: 'PDA.1' })).body.client.id).toBe('PDA.1')
    const { id, code } = await enrolment(server, { idPrefix: 'scale-', maxUses: 2 })
    for (const clientId of ['PDA.2', 'Scale-1', 'scale']) {
      const answer = await redeem(server, { code, clientId })
      expectProblem(answer, 400, 'INVALID_INPUT')
      expect(answer.body.errors).toEqual([{ path: 'clientId', message: 'must begin with "scale-"' }])
    }
    expect(await usesOf(server, id)).toEqual({ uses: 0, clients: 0 })
    expect((await redeem(server, { code, clientId: 'scale-7' })).body.client.id).toBe('scale-7')
    expect((await redeem(server, { code })).body.client.id).toMatch(/^scale-[0-9a-f]{12}$/)
  })

  test('of an id that is taken is a CONFLICT and counts no use; a deleted id may be taken again', async () => {
    await server.api.post('/clients', { id: 'taken' })
    const { id, code } = await enrolment(server, { zones: ['E1'] })
    expectProblem(await redeem(server, { code, clientId: 'taken' }), 409, 'CONFLICT')
    expect(await usesOf(server, id)).toEqual({ uses: 0, clients: 0 })
    await server.api.send('DELETE', '/clients/taken')
    const { status, body } = await redeem(server, { code, clientId: 'taken' })
    expect({ status, zones: body.client.zones }).toEqual({ status: 201, zones: ['E1'] })
  })

  test.each([
    [{}],
    [{ code: '' }],
    [{ code: 7 }],
    [{ code: null }],
    [{ code: ['sbe_x'] }],
    [{ code: 'x'.repeat(201) }],
    [{ code: 'sbe_\u0000' }],
    [{ code: 'sbe_x', clientId: 'no good' }],
    [{ code: 'sbe_x', clientId: 'x'.repeat(65) }],
    [{ code: 'sbe_x', clientKey: 'sbk_short' }],
    [{ code: 'sbe_x', clientKey: `sbt_${'x'.repeat(43)}` }],
    [{ code: 'sbe_x', zones: ['B'] }],
    [[]],
  ])('of %j is INVALID_INPUT', async (body) => {
    expectProblem(await redeem(server, JSON.stringify(body)), 400, 'INVALID_INPUT')
  })

  test('is written down as one change, by the enrolment, from the address, under the request id', async () => {
    const { id, code } = await enrolment(server, { zones: ['E1'], name: 'told' })
    await redeem(server, { code, clientId: 'written' })
    await server.api.send('DELETE', `/enrolments/${id}`)
    const [enrolled] = await audit('subject=client:written')
    expect(enrolled).toMatchObject({
      kind: 'client.enrolled',
      address: '127.0.0.1',
      requestId: expect.any(String),
      before: null,
      after: { name: 'written', zones: ['E1'], enrolment: id },
    })
    expect(enrolled).not.toHaveProperty('principal')
    const about = { name: 'told', zones: ['E1'], idPrefix: null, maxUses: 1, expiresAt: expect.any(String) }
    expect(await audit(`subject=enrolment:${id}`)).toMatchObject([
      { kind: 'enrolment.revoked', principal: 'admin', before: { ...about, uses: 1 }, after: null },
      { kind: 'enrolment.created', principal: 'admin', before: null, after: about },
    ])
  })

  test('without its audit row there is no client and no use', async () => {
    const { id, code } = await enrolment(server)
    await server.sql(`alter table audit add constraint closed check (subject <> 'client:atomic') not valid`)
    const answer = await redeem(server, { code, clientId: 'atomic' })
    await server.sql('alter table audit drop constraint closed')
    expectProblem(answer, 500, 'INTERNAL')
    expect(await usesOf(server, id)).toEqual({ uses: 0, clients: 0 })
    expect((await redeem(server, { code, clientId: 'atomic' })).status).toBe(201)
  })
})

describe('a code', () => {
  test('makes as many clients as it may, and not one more, whoever asks at the same moment', async () => {
    const { id, code } = await enrolment(server, { maxUses: 3 })
    const answers = await Promise.all(Array.from({ length: 50 }, () => redeem(server, { code })))
    const made = answers.filter(({ status }) => status === 201)
    expect(new Set(made.map(({ body }) => body.client.id)).size).toBe(3)
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(47)
    expect(await usesOf(server, id)).toEqual({ uses: 3, clients: 3 })
    const { items } = (await server.api.get('/enrolments?limit=200')).body
    expect(items.find((one: { id: string }) => one.id === id)).toMatchObject({ uses: 3, maxUses: 3 })
    expect(await server.sql(`select 1 from audit where after ->> 'enrolment' = $1`, [id])).toHaveLength(3)
  })

  test('that fifty use for one id makes one client and counts one use', async () => {
    const { id, code } = await enrolment(server, { maxUses: 50 })
    const answers = await Promise.all(Array.from({ length: 50 }, () => redeem(server, { code, clientId: 'wanted' })))
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(49).fill(409)])
    expect(await usesOf(server, id)).toEqual({ uses: 1, clients: 1 })
  })

  test('and its revocation at the same moment: the audit of the revocation has every use', async () => {
    const { id, code } = await enrolment(server, { maxUses: 100 })
    const answers = await Promise.all([
      ...Array.from({ length: 20 }, () => redeem(server, { code })),
      server.api.send('DELETE', `/enrolments/${id}`),
      ...Array.from({ length: 20 }, () => redeem(server, { code })),
    ])
    const made = answers.filter(({ status }) => status === 201).length
    expect(await usesOf(server, id)).toEqual({ uses: made, clients: made })
    const [revoked] = await audit(`subject=enrolment:${id}&kind=enrolment.revoked`)
    expect(revoked.before.uses).toBe(made)
  })

  test('works until its end and not after it', async () => {
    const { id, code } = await enrolment(server, { maxUses: 10 })
    await endsIn(id, 30)
    expect((await redeem(server, { code })).status).toBe(201)
    await endsIn(id, 0)
    const late = await redeem(server, { code })
    expectProblem(late, 401, 'UNAUTHORIZED')
    expect(late.body.detail).toBe('The enrolment code has expired.')
    expect(await usesOf(server, id)).toEqual({ uses: 1, clients: 1 })
  })

  test('ends by itself: the one second that it was given', async () => {
    const { code } = await enrolment(server, { maxUses: 100_000, ttlSeconds: 1 })
    await until(async () => (await redeem(server, { code })).status === 401, 'it has expired')
  })

  test('that was revoked opens nothing; its clients stay, and it cannot be revoked twice', async () => {
    const { id, code } = await enrolment(server, { maxUses: 2 })
    const { client, clientKey } = (await redeem(server, { code })).body
    expect((await server.api.send('DELETE', `/enrolments/${id}`)).status).toBe(204)
    const answer = await redeem(server, { code })
    expectProblem(answer, 401, 'UNAUTHORIZED')
    expect(answer.body.detail).toBe('The enrolment code was revoked.')
    expect((await httpClient(server.http, clientKey).post(`/clients/${client.id}/ping`)).status).toBe(204)
    expectProblem(await server.api.send('DELETE', `/enrolments/${id}`), 404, 'NOT_FOUND')
    expectProblem(await server.api.send('DELETE', '/enrolments/nonsense'), 404, 'NOT_FOUND')
    const { items } = (await server.api.get('/enrolments?limit=200')).body
    expect(items.map((one: { id: string }) => one.id)).not.toContain(id)
  })

  test.each(['sbe_short', `sbe_${'x'.repeat(43)}`, 'nonsense', 'sbt_test-administrator-0123456789'])(
    'that is none, %s, is UNAUTHORIZED',
    async (code) => {
      const answer = await redeem(server, { code })
      expectProblem(answer, 401, 'UNAUTHORIZED')
      expect(answer.body.detail).toBe('The enrolment code is not valid.')
    },
  )

  test('is no token and no key', async () => {
    const { code } = await enrolment(server)
    expectProblem(await httpClient(server.http, code).get('/clients'), 401, 'UNAUTHORIZED')
    expectProblem(await httpClient(server.http, code).post('/clients/x/ping'), 401, 'UNAUTHORIZED')
    expect((await redeem(server, { code })).status).toBe(201)
  })

  test('works on when the principal who made it is gone', async () => {
    const admin = await principal(server, 'admin')
    const { code } = await enrolment({ api: admin.api })
    await server.api.send('DELETE', `/principals/${admin.id}`)
    expect((await redeem(server, { code })).status).toBe(201)
  })
})

describe('a repetition, when the answer was lost', () => {
  test('with the key of the device is answered with the same client, though the code is used up', async () => {
    const { id, code } = await enrolment(server)
    const clientKey = newKey()
    const first = await redeem(server, { code, clientKey })
    expect(first).toMatchObject({ status: 201, body: { clientKey } })
    const clientId = first.body.client.id
    for (const body of [
      { code, clientKey },
      { code, clientKey, clientId },
    ]) {
      const again = await redeem(server, body)
      expect(again).toMatchObject({ status: 200, body: { clientKey, client: { id: clientId } } })
      expect(again.headers.get('idempotent-replayed')).toBe('true')
      expect(again.headers.get('location')).toBe(`/api/clients/${clientId}`)
    }
    await endsIn(id, -1)
    expect((await redeem(server, { code, clientKey })).status).toBe(200)
    await server.api.send('DELETE', `/enrolments/${id}`)
    expect((await redeem(server, { code, clientKey })).status).toBe(200)
    expect(await usesOf(server, id)).toEqual({ uses: 1, clients: 1 })
    expect(await audit(`subject=client:${clientId}`)).toHaveLength(1)
    const device = await connectDevice(server, { clientId, password: clientKey })
    expect(device.returnCode).toBe(0)
    await device.end()
  })

  test('that comes while the first is under way: one client, the same answer to all', async () => {
    for (const clientId of [undefined, 'twin']) {
      const { id, code } = await enrolment(server)
      const clientKey = newKey()
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => redeem(server, { code, clientKey, ...(clientId ? { clientId } : {}) })),
      )
      expect(answers.map(({ status }) => status).sort()).toEqual([...Array(19).fill(200), 201])
      expect(new Set(answers.map(({ body }) => body.client.id)).size).toBe(1)
      expect(await usesOf(server, id)).toEqual({ uses: 1, clients: 1 })
    }
  })

  test('without it is another use', async () => {
    const { id, code } = await enrolment(server, { maxUses: 2 })
    expect([(await redeem(server, { code })).status, (await redeem(server, { code })).status]).toEqual([201, 201])
    expectProblem(await redeem(server, { code }), 401, 'UNAUTHORIZED')
    expect(await usesOf(server, id)).toEqual({ uses: 2, clients: 2 })
  })

  test('with a key that is, or was, a client by other means is a CONFLICT and counts no use', async () => {
    const other = await enrolment(server)
    const enrolled = newKey()
    await redeem(server, { code: other.code, clientKey: enrolled })
    const registered = (await server.api.post('/clients', { id: 'has-a-key' })).body.clientKey
    await server.api.post('/clients', { id: 'rotates' })
    const rotated = (await server.api.post('/clients/rotates/rotate-key')).body.clientKey
    await server.api.post('/clients/rotates/rotate-key')
    const gone = (await server.api.post('/clients', { id: 'gone' })).body.clientKey
    await server.api.send('DELETE', '/clients/gone')
    const { id, code } = await enrolment(server, { maxUses: 10 })
    for (const clientKey of [enrolled, registered, rotated, gone]) {
      expectProblem(await redeem(server, { code, clientKey }), 409, 'CONFLICT')
    }
    const mine = newKey()
    await redeem(server, { code, clientKey: mine, clientId: 'mine' })
    expectProblem(await redeem(server, { code, clientKey: mine, clientId: 'yours' }), 409, 'CONFLICT')
    await server.api.send('DELETE', '/clients/mine')
    expectProblem(await redeem(server, { code, clientKey: mine }), 409, 'CONFLICT')
    expect(await usesOf(server, id)).toEqual({ uses: 1, clients: 1 })
  })

  test('with the same key under two enrolments at once: one client', async () => {
    const [a, b] = [await enrolment(server, { maxUses: 50 }), await enrolment(server, { maxUses: 50 })]
    const clientKey = newKey()
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => redeem(server, { code: index % 2 ? a.code : b.code, clientKey })),
    )
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(9)
    expect(answers.filter(({ status }) => status === 409)).toHaveLength(10)
  })
})

describe('is noticed as a security event', () => {
  const seen = (subject: string, kind: string) =>
    until(async () => {
      const { items } = (await server.api.get(`/security-events?subject=${subject}&kind=${kind}`)).body
      return items[0]
    }, `${kind} of ${subject}`)

  test('a code that is none, of the address', async () => {
    await redeem(server, { code: `sbe_${'y'.repeat(43)}` })
    await until(
      async () => (await seen('127.0.0.1', 'bad_key')).detail === 'an enrolment code that is none',
      'the address',
    )
  })

  test.each([
    ['expired', 'expired_key', 'warning', 'has expired', (id: string) => endsIn(id, 0)],
    [
      'revoked',
      'revoked_key',
      'critical',
      'was revoked',
      (id: string) => server.api.send('DELETE', `/enrolments/${id}`),
    ],
    ['used up', 'spent_code', 'warning', 'was used as often as it may be', undefined],
  ] as const)('one that is %s, of the enrolment', async (_, kind, severity, why, end) => {
    const { id, code } = await enrolment(server)
    if (end) await end(id)
    else await redeem(server, { code })
    expectProblem(await redeem(server, { code }), 401, 'UNAUTHORIZED')
    expect(await seen(`enrolment:${id}`, kind)).toMatchObject({
      severity,
      address: '127.0.0.1',
      detail: `the code of enrolment ${id} ${why}`,
      count: 1,
    })
  })

  test('but no repetition, and nothing that is merely wrong input', async () => {
    const { id, code } = await enrolment(server)
    const clientKey = newKey()
    await redeem(server, { code, clientKey })
    await redeem(server, { code, clientKey })
    await redeem(server, { code, clientId: 'no good' })
    await redeem(server, { code })
    // What is noticed later is stored later.
    expect(await seen(`enrolment:${id}`, 'spent_code')).toMatchObject({ count: 1 })
  })
})

test('too many wrong codes from an address are told to wait, and a right one is let in all the same', async () => {
  const strict = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: 5 })
  const { code } = await enrolment(strict, { maxUses: 2 })
  const wrong = { code: `sbe_${'x'.repeat(43)}` }
  for (let failure = 0; failure < 5; failure++) expectProblem(await redeem(strict, wrong), 401, 'UNAUTHORIZED')
  const throttled = await redeem(strict, wrong)
  expectProblem(throttled, 429, 'RATE_LIMIT')
  expect(throttled.headers.get('ratelimit-policy')).toBe('"login";q=5;w=60')
  expect(Number(throttled.headers.get('retry-after'))).toBeGreaterThan(0)
  // One count for all secrets.
  expect((await httpClient(strict.http, 'sbt_wrong').get('/clients')).status).toBe(429)
  expect((await redeem(strict, { code })).status).toBe(201)
  expect((await redeem(strict, { code })).status).toBe(201)
  expectProblem(await redeem(strict, { code }), 429, 'RATE_LIMIT')
  await strict.stop()
})

test('while the database is down nothing is confirmed and nothing is counted as wrong', async () => {
  const database = await createTestDatabase()
  const cut = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: 2 }, { database })
  const { id, code } = await enrolment(cut)
  await closeDatabase(database)
  for (let index = 0; index < 5; index++) expectProblem(await redeem(cut, { code }), 503, 'UNAVAILABLE')
  await reopenDatabase(database)
  const answer = await until(async () => {
    const { status, body } = await redeem(cut, { code })
    return status === 503 ? undefined : { status, body }
  }, 'the database is back')
  expect(answer.status).toBe(201)
  expect(await usesOf(cut, id)).toEqual({ uses: 1, clients: 1 })
  await cut.stop()
  await database.drop()
})

test('a burst of wrong codes shares its look-ups, and a right one in between is answered', async () => {
  const wrong = Array.from({ length: 300 }, (_, index) => redeem(server, { code: `sbe_bad-${index}` }))
  const { code } = await enrolment(server)
  expect((await redeem(server, { code })).status).toBe(201)
  expect(new Set((await Promise.all(wrong)).map(({ status }) => status))).toEqual(new Set([401]))
  const metrics = await (await fetch(`${server.http}/metrics`)).text()
  const [, items = ''] = /^signalbox_batch_items_sum\{batcher="enrolment_code"\} (\d+)$/m.exec(metrics) ?? []
  const [, rounds = ''] = /^signalbox_batch_items_count\{batcher="enrolment_code"\} (\d+)$/m.exec(metrics) ?? []
  expect(Number(items)).toBeGreaterThan(300)
  expect(Number(rounds)).toBeLessThan(Number(items))
})
