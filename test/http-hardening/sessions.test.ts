import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { fresh, grant, principal } from '../access/support/principals.ts'
import { createTestDatabase } from '../support/database.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { type Browser, logIn, send } from './support/browser.ts'

const IDLE = 3600
let server: TestServer
beforeAll(async () => {
  server = await startServer({ CREDENTIAL_CACHE_SECONDS: 0.2, HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000 })
  await server.api.post('/clients', { id: 'c1' })
})
afterAll(() => server.stop())

const hashOf = ({ cookie }: Browser): Buffer =>
  createHash('sha256')
    .update(cookie.slice(cookie.indexOf('=') + 1))
    .digest()
const change = (browser: Browser, changes: string) =>
  server.sql(`update console_sessions set ${changes} where secret_hash = $1`, [hashOf(browser)])
const statusOf = async (browser: Browser): Promise<number> => (await browser.send('GET', '/session')).status

/** An open stream of a browser; `ended` resolves when the server has closed it. */
async function stream(browser: Browser, path: string, at: Pick<TestServer, 'http'> = server) {
  const response = await fetch(`${at.http}/api${path}`, { headers: { cookie: browser.cookie } })
  expect(response.status).toBe(200)
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  const drain = async (): Promise<void> => {
    while (!(await reader.read()).done);
  }
  return { ended: drain().catch(() => undefined), close: () => reader.cancel() }
}

/** Everything long that a session can open. */
async function openAll(browser: Browser) {
  const { id } = (await server.api.post('/commands', { clientId: 'c1', action: 'print' })).body
  const feed = await stream(browser, '/events')
  const follow = await stream(browser, `/commands/${id}/stream`)
  const waiting = browser.send('GET', `/commands/${id}?wait=60`)
  return { ended: () => Promise.all([feed.ended, follow.ended, waiting]) }
}

describe('a login', () => {
  test('answers who it is, and sets a cookie that no script and no other site can use', async () => {
    const who = await principal(server, 'operator', [grant({ zone: 'A' })])
    const browser = await logIn(server, who.token)
    expect(browser.setCookie).toMatch(/^signalbox=sbs_[A-Za-z0-9_-]{43}; Path=\/api; HttpOnly; SameSite=Strict$/)
    expect(browser.answer).toEqual({
      principal: { id: who.id, name: who.name, role: 'operator' },
      grants: [grant({ zone: 'A' })],
      endsInSeconds: expect.any(Number),
      idleSeconds: IDLE,
      csrfToken: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
    })
    expect(browser.answer.endsInSeconds).toBeGreaterThan(43_190)
    expect(browser.answer.endsInSeconds).toBeLessThanOrEqual(43_200)
    const again = await browser.send('GET', '/session')
    expect(again.body).toMatchObject({ ...browser.answer, endsInSeconds: expect.any(Number) })
  })

  test('keeps a hash of the cookie, and leaves a row of the audit when it begins and when it ends', async () => {
    const who = await principal(server, 'viewer')
    const browser = await logIn(server, who.token)
    expect(await server.sql('select 1 from console_sessions where secret_hash = $1', [hashOf(browser)])).toHaveLength(1)
    await browser.send('DELETE', '/session')
    const rows = (await server.api.get(`/audit?principal=${who.name}`)).body.items
    expect(rows).toMatchObject([
      { kind: 'session.ended', address: '127.0.0.1', before: { token: who.tokenId }, after: null },
      { kind: 'session.opened', address: '127.0.0.1', before: null, after: { token: who.tokenId } },
    ])
    expect(JSON.stringify(rows)).not.toMatch(/sb[st]_/)
  })

  test.each([
    ['a wrong token', { token: `sbt_${'x'.repeat(43)}` }, 401, 'UNAUTHORIZED'],
    ['a client key', { token: `sbk_${'x'.repeat(43)}` }, 401, 'UNAUTHORIZED'],
    ['no token', {}, 400, 'INVALID_INPUT'],
    ['an empty token', { token: '' }, 400, 'INVALID_INPUT'],
    ['a number', { token: 5 }, 400, 'INVALID_INPUT'],
    ['a long token', { token: 'x'.repeat(501) }, 400, 'INVALID_INPUT'],
    ['something else too', { token: 'sbt_x', remember: true }, 400, 'INVALID_INPUT'],
    ['an array', ['sbt_x'], 400, 'INVALID_INPUT'],
  ])('with %s is refused and sets no cookie', async (_name, body, status, code) => {
    const answer = await send(server, 'POST', '/api/session', {}, body)
    expect(answer).toMatchObject({ status, body: { code } })
    expect(answer.headers['set-cookie']).toBeUndefined()
  })

  test('replaces the session that the browser had', async () => {
    const { token } = await principal(server, 'viewer')
    const first = await logIn(server, token)
    const feed = await stream(first, '/events')
    const second = await logIn(server, token, first.cookie)
    await feed.ended
    expect(second.cookie).not.toBe(first.cookie)
    expect(await statusOf(first)).toBe(401)
    expect(await statusOf(second)).toBe(200)
  })

  test('beyond SESSION_MAX_OPEN ends the oldest of the token, and no other', async () => {
    const few = await startServer({ SESSION_MAX_OPEN: 2 })
    const who = await principal(few, 'viewer')
    const other = await logIn(few, (await principal(few, 'viewer')).token)
    const open = [await logIn(few, who.token), await logIn(few, who.token), await logIn(few, who.token)]
    expect(await Promise.all(open.map(statusOf))).toEqual([401, 200, 200])
    expect(await statusOf(other)).toBe(200)
    await few.stop()
  })

  test('too many wrong ones are RATE_LIMIT, and a right one is let in all the same', async () => {
    const strict = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: 3 })
    const { token } = await principal(strict, 'viewer')
    const wrong = async () => (await send(strict, 'POST', '/api/session', {}, { token: 'sbt_wrong' })).status
    expect([await wrong(), await wrong(), await wrong(), await wrong()]).toEqual([401, 401, 401, 429])
    expect(await statusOf(await logIn(strict, token))).toBe(200)
    await strict.stop()
  })
})

describe('what a session may is what its principal may', () => {
  test('by its role and its grants, as they are now', async () => {
    const who = await principal(server, 'operator')
    const browser = await logIn(server, who.token)
    const sending = async () => (await browser.send('POST', '/commands', { clientId: 'c1', action: 'print' })).status
    expect(await sending()).toBe(403)
    await server.api.send('PUT', `/principals/${who.id}/grants`, [grant('*')])
    expect(await sending()).toBe(201)
    expect((await browser.send('POST', '/clients', { id: fresh('x') })).status).toBe(403)
  })

  test('a token in hand is told who it is, and has no session to end', async () => {
    const who = await principal(server, 'viewer')
    expect((await who.api.get('/session')).body).toEqual({
      principal: { id: who.id, name: who.name, role: 'viewer' },
      grants: null,
      endsInSeconds: null,
    })
    expect((await who.api.send('DELETE', '/session')).status).toBe(204)
    expect((await who.api.get('/session')).status).toBe(200)
  })
})

describe('a session ends at once, with what it opened', () => {
  const ended = async (browser: Browser, opened: { ended(): Promise<unknown> }): Promise<void> => {
    await opened.ended()
    const answer = await browser.send('GET', '/session')
    expect(answer).toMatchObject({ status: 401, body: { code: 'UNAUTHORIZED' } })
    expect(answer.headers['set-cookie']).toEqual(['signalbox=; Path=/api; HttpOnly; SameSite=Strict; Max-Age=0'])
  }

  test('when somebody logs out, and only that one', async () => {
    const { token } = await principal(server, 'viewer')
    const [browser, other] = [await logIn(server, token), await logIn(server, token)]
    const opened = await openAll(browser)
    const answer = await browser.send('DELETE', '/session')
    expect(answer.status).toBe(204)
    expect(answer.headers['set-cookie']?.[0]).toContain('Max-Age=0')
    await ended(browser, opened)
    expect(await statusOf(other)).toBe(200)
  })

  test('when its token is revoked', async () => {
    const who = await principal(server, 'viewer')
    const browser = await logIn(server, who.token)
    const opened = await openAll(browser)
    await server.api.send('DELETE', `/tokens/${who.tokenId}`)
    await ended(browser, opened)
  })

  test('when its principal is deleted', async () => {
    const who = await principal(server, 'technician')
    const browser = await logIn(server, who.token)
    const opened = await openAll(browser)
    await server.api.send('DELETE', `/principals/${who.id}`)
    await ended(browser, opened)
  })

  test('when its token expires', async () => {
    const who = await principal(server, 'viewer')
    const expiresAt = new Date(Date.now() + 2000).toISOString()
    const { body } = await server.api.post('/tokens', { principalId: who.id, name: 'short', expiresAt })
    const browser = await logIn(server, body.token)
    expect(browser.answer.endsInSeconds).toBeLessThanOrEqual(2)
    await ended(browser, await openAll(browser))
  })

  test('when its time is over, whatever is done with it', async () => {
    const short = await startServer({ SESSION_MAX_SECONDS: 2 })
    const browser = await logIn(short, (await principal(short, 'viewer')).token)
    const feed = await stream(browser, '/events', short)
    expect(await statusOf(browser)).toBe(200)
    await feed.ended
    expect(await statusOf(browser)).toBe(401)
    await short.stop()
  })

  test('when it was idle for too long: an open stream is no use of it', async () => {
    const browser = await logIn(server, (await principal(server, 'viewer')).token)
    const feed = await stream(browser, '/events')
    // The request that opened the stream is noted as a use, a moment later.
    await until(async () => {
      await change(browser, `last_used_at = clock_timestamp() - interval '${IDLE} seconds'`)
      return (await statusOf(browser)) === 401
    }, 'the session has ended')
    await feed.ended
  })
})

describe('times, by the clock of the database', () => {
  // Written around the API, so that no server remembers anything of it.
  async function stored(sql: { expires: string; lastUsed: string; tokenExpires?: string }): Promise<Browser> {
    const who = await principal(server, 'viewer')
    const secret = `sbs_${fresh('made').padEnd(43, '0')}`
    const browser = await logIn(server, who.token)
    await server.sql(`update tokens set expires_at = ${sql.tokenExpires ?? 'null'} where id = $1`, [who.tokenId])
    await server.sql(
      `insert into console_sessions (id, token_id, secret_hash, expires_at, last_used_at)
       values (gen_random_uuid(), $1, $2, ${sql.expires}, ${sql.lastUsed})`,
      [who.tokenId, createHash('sha256').update(secret).digest()],
    )
    const cookie = `signalbox=${secret}`
    return { ...browser, cookie, send: (method, path) => send(server, method, `/api${path}`, { cookie }) }
  }
  const ago = (seconds: number): string => `clock_timestamp() - interval '${seconds} seconds'`
  const later = (seconds: number): string => `clock_timestamp() + interval '${seconds} seconds'`

  test.each([
    ['in use', later(60), ago(0), undefined, 200],
    ['not idle by two seconds', later(60), ago(IDLE - 2), undefined, 200],
    ['idle to the second', later(60), ago(IDLE), undefined, 401],
    ['idle for long', later(60), ago(2 * IDLE), undefined, 401],
    ['at its end', ago(0), ago(0), undefined, 401],
    ['beyond its end', ago(1), ago(0), undefined, 401],
    ['two seconds before its end', later(2), ago(0), undefined, 200],
    ['with a token at its end', later(60), ago(0), ago(0), 401],
    ['with a token that lives a little', later(60), ago(0), later(2), 200],
  ])('%s', async (_name, expires, lastUsed, tokenExpires, status) => {
    expect(await statusOf(await stored({ expires, lastUsed, ...(tokenExpires ? { tokenExpires } : {}) }))).toBe(status)
  })

  test('each use puts the idle end off', async () => {
    const browser = await stored({ expires: later(60), lastUsed: ago(IDLE - 2) })
    expect(await statusOf(browser)).toBe(200)
    const lastUsed = `select 1 from console_sessions where secret_hash = $1 and last_used_at > ${ago(30)}`
    await until(async () => (await server.sql(lastUsed, [hashOf(browser)])).length > 0, 'the use is noted')
  })

  test('what has ended is kept for a day, so that it is not taken for a guess, and then forgotten', async () => {
    const late = await stored({ expires: ago(80_000), lastUsed: ago(80_000) })
    const old = await stored({ expires: ago(90_000), lastUsed: ago(0) })
    const idle = await stored({ expires: later(60), lastUsed: ago(90_000 + IDLE) })
    const kept = async (browser: Browser) =>
      (await server.sql('select 1 from console_sessions where secret_hash = $1', [hashOf(browser)])).length
    await until(async () => (await kept(old)) + (await kept(idle)) === 0, 'the sweeper forgets them')
    expect(await kept(late)).toBe(1)
  })
})

test('a cookie that is none is a security event; one whose time is over is not', async () => {
  const clean = await startServer()
  const browser = await logIn(clean, (await principal(clean, 'viewer')).token)
  await clean.sql('update console_sessions set expires_at = clock_timestamp()')
  const later = await startServer({}, { database: clean.database_ })
  expect((await send(later, 'GET', '/api/session', { cookie: browser.cookie })).status).toBe(401)
  expect((await send(later, 'GET', '/api/session', { cookie: `signalbox=sbs_${'x'.repeat(43)}` })).status).toBe(401)
  const events = () => clean.sql<{ detail: string }>('select detail, count::int from security_events')
  await until(async () => (await events()).length > 0, 'the event')
  expect(await events()).toEqual([{ detail: 'the cookie of a session that is none', count: 1 }])
  await later.stop()
  await clean.stop()
})

test('a session survives a restart, works on any server, and ends on all of them', async () => {
  const database = await createTestDatabase()
  const first = await startServer({}, { database })
  const browser = await logIn(first, (await principal(first, 'viewer')).token)
  await first.stop()
  const here = await startServer({ CREDENTIAL_CACHE_SECONDS: 0.3 }, { database })
  const there = await startServer({}, { database })
  const own = { cookie: browser.cookie, 'sec-fetch-site': 'same-origin', 'x-csrf-token': browser.csrfToken }
  const feed = await stream(browser, '/events', here)
  expect((await send(there, 'GET', '/api/session', own)).body.csrfToken).toBe(browser.csrfToken)
  expect((await send(there, 'DELETE', '/api/session', own)).status).toBe(204)
  await feed.ended
  await until(async () => (await send(here, 'GET', '/api/session', own)).status === 401, 'it has ended here')
  await here.stop()
  await there.stop()
  await database.drop()
})

test('no log line has a cookie or a token', () => {
  expect(JSON.stringify(server.logs)).not.toMatch(/sb[kst]_[A-Za-z0-9]/)
})
