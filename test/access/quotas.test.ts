import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connectDatabase, type Db } from '../../db/connect.ts'
import { insertCommands, type NewCommand } from '../../db/new-commands.ts'
import { dayOf, secondsLeft } from '../../db/quotas.ts'
import type { Grant } from '../../schemas/principals.ts'
import { expectProblem } from '../api/support.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { type Answer, httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { startServerProcess } from '../support/server-process.ts'
import { client, fresh, grant, principal, type TestPrincipal } from './support/principals.ts'

/** Where it is about noon: no day ends in the middle of a test. */
const NOON = (() => {
  const hours = 12 - new Date().getUTCHours()
  // The sign of these names is the other way round.
  return `Etc/GMT${hours > 0 ? '-' : '+'}${Math.abs(hours)}`
})()
const SETTINGS = { MAX_PENDING_PER_CLIENT: 10_000, DAY_TIME_ZONE: NOON }

let server: TestServer
let db: Db
beforeAll(async () => {
  server = await startServer(SETTINGS)
  db = connectDatabase({
    connection: server.database_.url,
    poolSize: 4,
    timeoutSeconds: 10,
    onIdleError: () => undefined,
  })
  for (const id of ['c1', 'c2']) await client(server, id, ['A'])
  await client(server, 'off', ['A'])
  await server.api.post('/clients/off/disable')
})
afterAll(async () => {
  await db.destroy()
  await server.stop()
})

const operator = (limits: Partial<Grant>, scope: Grant['scope'] = '*') =>
  principal(server, 'operator', [grant(scope, limits)])
const print = { clientId: 'c1', action: 'print' }
const send = (who: TestPrincipal, body: object = print, key?: string) =>
  who.api.post('/commands', body, key === undefined ? {} : { 'idempotency-key': key })
const usage = (who: TestPrincipal) =>
  server.sql('select scope, used, refused from grant_usage where principal_id = $1 order by scope', [who.id])
const stored = async (who: TestPrincipal) =>
  (await server.sql<{ n: number }>('select count(*)::int as n from commands where created_by = $1', [who.name]))[0]?.n
const codes = (answers: Answer[]) => {
  const counts: Record<string, number> = {}
  for (const { status, body } of answers) {
    const code = status === 201 ? '201' : (body.code as string)
    counts[code] = (counts[code] ?? 0) + 1
  }
  return counts
}

/** A list of the RateLimit fields, as a caller reads it: {minute: {r: 4, t: 60}}. */
function parsed(field: string | null): Record<string, Record<string, number>> {
  const items = (field ?? '').split(', ').filter(Boolean)
  return Object.fromEntries(
    items.map((item) => {
      const [name, ...parameters] = item.split(';') as [string, ...string[]]
      const values = parameters.map((one) => one.split('=')).map(([key, value]) => [key, Number(value)])
      return [JSON.parse(name), Object.fromEntries(values)]
    }),
  )
}

describe('the day limit', () => {
  test('is exact at its boundary, and says what is left', async () => {
    const who = await operator({ maxCommandsPerDay: 3 })
    for (const remaining of [2, 1, 0]) {
      const answer = await send(who)
      expect(answer.status).toBe(201)
      expect(parsed(answer.headers.get('ratelimit-policy')).day).toEqual({ q: 3, w: 86_400 })
      const { r, t } = parsed(answer.headers.get('ratelimit')).day as { r: number; t: number }
      expect(r).toBe(remaining)
      expect(t).toBeGreaterThan(0)
      expect(t).toBeLessThanOrEqual(86_400)
    }
    const refused = await send(who)
    expectProblem(refused, 429, 'DAILY_LIMIT')
    expect(parsed(refused.headers.get('ratelimit')).day?.r).toBe(0)
    expect(Number(refused.headers.get('retry-after'))).toBe(parsed(refused.headers.get('ratelimit')).day?.t)
    expect(await stored(who)).toBe(3)
    expect(await usage(who)).toEqual([{ scope: '*', used: 3, refused: 1 }])
  })

  test.each([
    ['one batch after another', print],
    ['zone by zone', { zone: 'A', action: 'print' }],
  ])('50 at once, %s: exactly as many as are allowed', async (_name, body) => {
    const size = 'zone' in body ? 2 : 1
    const who = await operator({ maxCommandsPerDay: 20 * size })
    const answers = await Promise.all(Array.from({ length: 50 }, () => send(who, body)))
    expect(codes(answers)).toEqual({ 201: 20, DAILY_LIMIT: 30 })
    expect(await stored(who)).toBe(20)
    expect(await usage(who)).toEqual([{ scope: '*', used: 20 * size, refused: 30 * size }])
  })

  test('counts a group once per target that gets it, all or nothing', async () => {
    const who = await operator({ maxCommandsPerDay: 3 })
    const zone = { zone: 'A', action: 'print' }
    // Three members, one of them disabled.
    expect((await send(who, zone)).body.total).toBe(2)
    const refused = await send(who, zone)
    expectProblem(refused, 429, 'DAILY_LIMIT')
    expect(refused.body.detail).toContain('has 1 left')
    expect((await send(who)).status).toBe(201)
    expectProblem(await send(who), 429, 'DAILY_LIMIT')
    expect(await usage(who)).toEqual([{ scope: '*', used: 3, refused: 3 }])
  })

  test('a group under several grants counts against each; if one has no room, against none', async () => {
    const zone = fresh('zone')
    const [x, y] = [`${zone}-x`, `${zone}-y`]
    for (const id of [x, y]) await client(server, id, [zone])
    const who = await principal(server, 'operator', [
      grant({ clientId: x }, { maxCommandsPerDay: 2 }),
      grant({ zone }, { maxCommandsPerDay: 1 }),
    ])
    expect((await send(who, { zone, action: 'print' })).status).toBe(201)
    expectProblem(await send(who, { zone, action: 'print' }), 429, 'DAILY_LIMIT')
    expect(await usage(who)).toEqual([
      { scope: `client:${x}`, used: 1, refused: 0 },
      { scope: `zone:${zone}`, used: 1, refused: 1 },
    ])
    expect((await send(who, { clientId: x, action: 'print' })).status).toBe(201)
    expectProblem(await send(who, { clientId: y, action: 'print' }), 429, 'DAILY_LIMIT')
  })

  test('what is refused counts nothing, whatever the reason', async () => {
    const who = await operator({ maxCommandsPerDay: 1, commandsPerMinute: 1 })
    const refusals: [status: number, code: string, body: object][] = [
      [400, 'INVALID_INPUT', { ...print, priority: 11 }],
      [400, 'INVALID_INPUT', { ...print, expiresAt: '2020-01-01T00:00:00Z' }],
      [404, 'NOT_FOUND', { ...print, clientId: 'nobody' }],
      [403, 'CLIENT_DISABLED', { ...print, clientId: 'off' }],
      [409, 'NO_TARGETS', { zone: 'nowhere', action: 'print' }],
      [409, 'TARGETS_CHANGED', { ...print, expectedTargets: 'x' }],
      [413, 'PAYLOAD_TOO_LARGE', { ...print, payload: 'x'.repeat(262_144) }],
    ]
    for (const [status, code, body] of refusals) expectProblem(await send(who, body), status, code)
    expect(await usage(who)).toEqual([])
    expect((await send(who)).status).toBe(201)
    expect(await usage(who)).toEqual([{ scope: '*', used: 1, refused: 0 }])
  })

  test('an idempotent repetition does not count, and is answered when nothing is left', async () => {
    const who = await operator({ maxCommandsPerDay: 2, commandsPerMinute: 2 })
    const key = randomUUID()
    const first = await send(who, print, key)
    expect(first.status).toBe(201)
    expect((await send(who, print, key)).status).toBe(200)
    expect((await send(who)).status).toBe(201)
    for (let round = 0; round < 3; round++) {
      expect(await send(who, print, key)).toMatchObject({ status: 200, body: { id: first.body.id } })
    }
    expectProblem(await send(who), 429, 'RATE_LIMIT')
    expect(await usage(who)).toEqual([{ scope: '*', used: 2, refused: 0 }])
  })

  test('20 twins with one key at once count once', async () => {
    const who = await operator({ maxCommandsPerDay: 100 })
    const key = randomUUID()
    const answers = await Promise.all(Array.from({ length: 20 }, () => send(who, print, key)))
    expect(answers.map(({ status }) => status).sort()).toEqual([...Array(19).fill(200), 201])
    expect(await usage(who)).toEqual([{ scope: '*', used: 1, refused: 0 }])
  })

  test('a limit of 0 allows nothing; a raised one is in force with the next request, and what was used counts', async () => {
    const who = await operator({ maxCommandsPerDay: 0 })
    expectProblem(await send(who), 429, 'DAILY_LIMIT')
    const raised = [grant('*', { maxCommandsPerDay: 1 })]
    await server.api.send('PUT', `/principals/${who.id}/grants`, raised)
    expect((await send(who)).status).toBe(201)
    await server.api.send('PUT', `/principals/${who.id}/grants`, [])
    await server.api.send('PUT', `/principals/${who.id}/grants`, raised)
    expectProblem(await send(who), 429, 'DAILY_LIMIT')
  })

  test('begins anew at midnight', async () => {
    const who = await operator({ maxCommandsPerDay: 1 })
    expect((await send(who)).status).toBe(201)
    expectProblem(await send(who), 429, 'DAILY_LIMIT')
    // What was counted today is yesterday's tomorrow.
    await server.sql('update grant_usage set day = day - 1 where principal_id = $1', [who.id])
    expect((await send(who)).status).toBe(201)
    expectProblem(await send(who), 429, 'DAILY_LIMIT')
  })

  test('an administrator has none: no header, no counter', async () => {
    const answer = await server.api.post('/commands', print)
    expect(answer.headers.get('ratelimit')).toBeNull()
    expect(answer.headers.get('ratelimit-policy')).toBeNull()
    const [admin] = await server.sql(
      `select count(*)::int as n from grant_usage u join principals p on p.id = u.principal_id where p.name = 'admin'`,
    )
    expect(admin).toEqual({ n: 0 })
  })

  test('the statement itself refuses a target that is not covered: it may have come after the decision', async () => {
    const [before] = await server.sql('select count(*)::int as n from commands')
    const who = await operator({})
    const command: NewCommand = {
      id: randomUUID(),
      principalId: who.id,
      createdBy: who.name,
      idempotencyKey: null,
      requestHash: 'ab',
      target: { kind: 'zone', zone: 'A' },
      action: 'print',
      payload: undefined,
      priority: 5,
      delivery: 'at_most_once',
      startTimeoutSeconds: 60,
      timeoutSeconds: 60,
      maxRetries: 0,
      notBefore: null,
      expiresAt: null,
      ttlSeconds: 60,
      expectedTargets: null,
      claims: new Map(),
      sure: false,
      quota: { everyone: null, byClient: new Map([['c1', '*']]), dayLimits: { '*': 10 } },
    }
    const limits = { maxPendingPerClient: 10_000, dayTimeZone: 'UTC' }
    const [result] = await insertCommands(db, [command], limits)
    expect(result).toMatchObject({ refusal: 'not_covered', uncovered: 1 })
    expect(await server.sql('select count(*)::int as n from commands')).toEqual([before])
    expect(await usage(who)).toEqual([])
  })
})

describe('the minute limit', () => {
  test('50 at once, 20 allowed: exactly 20 pass; the rest is told when to come back', async () => {
    const who = await operator({ commandsPerMinute: 20 })
    const answers = await Promise.all(Array.from({ length: 50 }, () => send(who)))
    expect(codes(answers)).toEqual({ 201: 20, RATE_LIMIT: 30 })
    const refused = answers.find(({ status }) => status === 429) as Answer
    expect(parsed(refused.headers.get('ratelimit-policy'))).toEqual({ minute: { q: 20, w: 60 } })
    const { r, t } = parsed(refused.headers.get('ratelimit')).minute as { r: number; t: number }
    expect(r).toBe(0)
    expect(t).toBeGreaterThan(50)
    expect(refused.headers.get('retry-after')).toBe(String(t))
  })

  test('a group counts as one', async () => {
    const who = await operator({ commandsPerMinute: 2 })
    expect((await send(who, { zone: 'A', action: 'print' })).status).toBe(201)
    const second = await send(who, { broadcast: true, action: 'print' })
    expect(parsed(second.headers.get('ratelimit')).minute?.r).toBe(0)
    expectProblem(await send(who), 429, 'RATE_LIMIT')
  })

  test('each grant has its own', async () => {
    const who = await principal(server, 'operator', [
      grant({ clientId: 'c1' }, { commandsPerMinute: 1 }),
      grant({ clientId: 'c2' }, { commandsPerMinute: 1 }),
    ])
    for (const clientId of ['c1', 'c2']) expect((await send(who, { ...print, clientId })).status).toBe(201)
    for (const clientId of ['c1', 'c2']) expectProblem(await send(who, { ...print, clientId }), 429, 'RATE_LIMIT')
  })

  test('what the day limit refuses is not counted in the minute', async () => {
    const who = await operator({ commandsPerMinute: 3, maxCommandsPerDay: 1 })
    expect((await send(who)).status).toBe(201)
    for (let round = 0; round < 5; round++) expectProblem(await send(who), 429, 'DAILY_LIMIT')
  })
})

test('QUEUE_FULL, too, says what the limit is', async () => {
  const small = await startServer({ MAX_PENDING_PER_CLIENT: 1 })
  await client(small, 'full')
  const body = { clientId: 'full', action: 'print' }
  expect((await small.api.post('/commands', body)).status).toBe(201)
  const refused = await small.api.post('/commands', body)
  expectProblem(refused, 429, 'QUEUE_FULL')
  expect(refused.headers.get('ratelimit-policy')).toBe('"queue";q=1')
  expect(refused.headers.get('ratelimit')).toBe('"queue";r=0;t=1')
  expect(refused.headers.get('retry-after')).toBe('1')
  await small.stop()
})

describe('the day', () => {
  const instants: [instant: string, zone: string, day: string, hoursLeft: number][] = [
    ['2026-03-01T23:59:59.999Z', 'UTC', '2026-03-01', 0.001 / 3600],
    ['2026-03-02T00:00:00Z', 'UTC', '2026-03-02', 24],
    ['2026-03-01T14:59:59Z', 'Asia/Seoul', '2026-03-01', 1 / 3600],
    ['2026-03-01T15:00:00Z', 'Asia/Seoul', '2026-03-02', 24],
    ['2026-03-01T18:30:00Z', 'Asia/Kolkata', '2026-03-02', 24],
    // Summer time begins on 29 March 2026 and ends on 25 October in Berlin: that night is shorter, or longer.
    ['2026-03-28T23:00:00Z', 'Europe/Berlin', '2026-03-29', 23],
    ['2026-03-29T21:59:59Z', 'Europe/Berlin', '2026-03-29', 1 / 3600],
    ['2026-10-24T22:00:00Z', 'Europe/Berlin', '2026-10-25', 25],
  ]
  test.each(instants)('%s in %s is of %s', async (instant, zone, day, hoursLeft) => {
    const at = sql`${instant}::timestamptz`
    const found = await sql<{ day: string; left: number }>`
      select ${dayOf(at, zone)}::text as day, ${secondsLeft(at, zone)} as left`.execute(db)
    expect(found.rows[0]?.day).toBe(day)
    expect(found.rows[0]?.left).toBeCloseTo(hoursLeft * 3600, 6)
  })

  test('is that of DAY_TIME_ZONE: where it is another day, another day counts', async () => {
    // 25 hours apart: at no time do they have the same day.
    const database = await createTestDatabase()
    const east = await startServer({ DAY_TIME_ZONE: 'Pacific/Kiritimati' }, { database })
    const west = await startServer({ DAY_TIME_ZONE: 'Pacific/Niue' }, { database })
    await client(east, 'c1')
    const who = await principal(east, 'operator', [grant('*', { maxCommandsPerDay: 1 })])
    const overThere = { ...who, api: httpClient(west.http, who.token) }
    for (const there of [who, overThere]) {
      expect((await send(there)).status).toBe(201)
      expectProblem(await send(there), 429, 'DAILY_LIMIT')
    }
    const days = await database.query<{ days: number }>('select max(day) - min(day) as days from grant_usage')
    expect(days[0]?.days).toBeGreaterThanOrEqual(1)
    await east.stop()
    await west.stop()
    await database.drop()
  })

  test.each(['Nowhere/City', '+09:00', 'Europe/Berlin; drop'])('%s is no DAY_TIME_ZONE', async (zone) => {
    await expect(startServer({ DAY_TIME_ZONE: zone })).rejects.toThrow('DAY_TIME_ZONE: must be an IANA time zone')
  })
})

test('two servers on one database: 50 at once, 20 allowed, exactly 20 pass', async () => {
  const database: TestDatabase = await createTestDatabase()
  const nodes = [
    await startServerProcess(database, { settings: SETTINGS }),
    await startServerProcess(database, { settings: SETTINGS }),
  ]
  const [first] = nodes as [(typeof nodes)[0]]
  await client(first, 'c1', ['A'])
  await client(first, 'c2', ['A'])
  for (const [body, size] of [
    [print, 1],
    [{ zone: 'A', action: 'print' }, 2],
  ] as const) {
    const who = await principal(first, 'operator', [grant('*', { maxCommandsPerDay: 20 * size })])
    const doors = nodes.map(({ http }) => httpClient(http, who.token))
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, index) => (doors[index % 2] as (typeof doors)[0]).post('/commands', body)),
    )
    expect(codes(answers)).toEqual({ 201: 20, DAILY_LIMIT: 30 })
    const [row] = await database.query('select used, refused from grant_usage where principal_id = $1', [who.id])
    expect(row).toEqual({ used: 20 * size, refused: 30 * size })
  }
  for (const node of nodes) await node.kill()
  await database.drop()
}, 60_000)
