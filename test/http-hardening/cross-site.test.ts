import { Agent, type OutgoingHttpHeaders } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { principal } from '../access/support/principals.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { type Browser, logIn, send } from './support/browser.ts'

let server: TestServer
let browser: Browser
let another: Browser
const agent = new Agent({ keepAlive: true })

beforeAll(async () => {
  server = await startServer()
  const { token } = await principal(server, 'admin')
  browser = await logIn(server, token)
  another = await logIn(server, token)
  await server.api.post('/clients', { id: 'c1' })
})
afterAll(async () => {
  agent.destroy()
  await server.stop()
})

type Verdict = 'own page' | 'another page' | 'nobody says'
const host = (): string => new URL(server.http).host

/** What Sec-Fetch-Site says; it decides where it is there. */
const SITES: [site: string | undefined, reading: Verdict, changing: Verdict][] = [
  ['same-origin', 'own page', 'own page'],
  ['same-site', 'another page', 'another page'],
  ['cross-site', 'another page', 'another page'],
  ['none', 'own page', 'another page'],
  ['Same-Origin', 'another page', 'another page'],
  ['same-origin, cross-site', 'another page', 'another page'],
  ['bogus', 'another page', 'another page'],
]

/** What Origin says where there is no Sec-Fetch-Site. */
const ORIGINS: [name: string, origin: () => string | undefined, verdict: Verdict][] = [
  ['none', () => undefined, 'nobody says'],
  ['its own', () => server.http, 'own page'],
  ['its own behind a TLS proxy', () => `https://${host()}`, 'own page'],
  ['its own name on another port', () => 'http://127.0.0.1:1', 'another page'],
  ['another name of its address', () => `http://localhost:${new URL(server.http).port}`, 'another page'],
  ['a name that begins with its own', () => `http://${host()}.evil.example`, 'another page'],
  ['its own as a user name', () => `http://${host()}@evil.example`, 'another page'],
  ['another site', () => 'https://evil.example', 'another page'],
  ['null', () => 'null', 'another page'],
  ['what is no origin', () => 'evil', 'another page'],
]

const TOKENS: [name: string, token: () => string | undefined, right: boolean][] = [
  ['the right token', () => browser.csrfToken, true],
  ['no token', () => undefined, false],
  ['an empty token', () => '', false],
  ['a wrong token', () => 'x'.repeat(43), false],
  ["another session's token", () => another.csrfToken, false],
  ['the right token in other letters', () => browser.csrfToken.toUpperCase(), false],
]

/** What succeeds for an administrator each time. */
const METHODS: [method: string, path: string, body: unknown, status: number][] = [
  ['GET', '/api/clients', undefined, 200],
  ['HEAD', '/api/clients', undefined, 200],
  ['POST', '/api/clients/c1/enable', undefined, 200],
  ['PUT', '/api/zones/A/clients/c1', undefined, 200],
  ['PATCH', '/api/clients/c1', { name: 'c1' }, 200],
  ['DELETE', '/api/zones/B/clients/c1', undefined, 404],
]
const reads = (method: string): boolean => method === 'GET' || method === 'HEAD'

async function expectVerdict(method: string, verdict: Verdict, headers: OutgoingHttpHeaders): Promise<void> {
  const [, path, body, status] = METHODS.find(([name]) => name === method) as (typeof METHODS)[number]
  for (const [name, token, right] of TOKENS) {
    const given = token()
    const all = { cookie: browser.cookie, ...headers, ...(given === undefined ? {} : { 'x-csrf-token': given }) }
    const answer = await send(server, method, path, all, body, agent)
    const allowed = reads(method) ? verdict !== 'another page' : verdict === 'own page' && right
    expect(answer.status, name).toBe(allowed ? status : 403)
    if (!allowed && method !== 'HEAD') expect(answer.body.code, name).toBe('FORBIDDEN')
    expect(answer.headers['set-cookie'], 'the session goes on').toBeUndefined()
  }
}

describe.each(METHODS)('%s with the cookie', (method) => {
  describe.each(SITES)('Sec-Fetch-Site %s', (site, reading, changing) => {
    test.each(ORIGINS)('and as origin %s', async (_name, origin) => {
      const from = origin()
      const headers = { 'sec-fetch-site': site, ...(from === undefined ? {} : { origin: from }) }
      await expectVerdict(method, reads(method) ? reading : changing, headers)
    })
  })

  test.each(ORIGINS)('no Sec-Fetch-Site, and as origin %s', async (_name, origin, verdict) => {
    const from = origin()
    await expectVerdict(method, verdict, from === undefined ? {} : { origin: from })
  })
})

test('a token in Authorization needs none of this, and what comes with it does not matter', async () => {
  const bearer = { authorization: `Bearer ${(await principal(server, 'admin')).token}`, 'sec-fetch-site': 'cross-site' }
  for (const [method, path, body, status] of METHODS) {
    expect((await send(server, method, path, { ...bearer, origin: 'https://evil.example' }, body)).status).toBe(status)
    expect((await send(server, method, path, { ...bearer, cookie: browser.cookie }, body)).status).toBe(status)
  }
})

test('with a wrong token in Authorization the cookie is not asked', async () => {
  const headers = { authorization: 'Bearer sbt_wrong', cookie: browser.cookie, 'sec-fetch-site': 'same-origin' }
  expect((await send(server, 'GET', '/api/clients', headers)).status).toBe(401)
})

test("the cookie opens no client's door", async () => {
  const answer = await browser.send('POST', '/clients/c1/ping')
  expect(answer).toMatchObject({ status: 401, body: { code: 'UNAUTHORIZED' } })
})

test('another page cannot log a browser in', async () => {
  const { token } = await principal(server, 'viewer')
  for (const headers of [{ 'sec-fetch-site': 'cross-site' }, { origin: 'https://evil.example' }, { origin: 'null' }]) {
    const answer = await send(server, 'POST', '/api/session', headers, { token })
    expect(answer).toMatchObject({ status: 403, body: { code: 'FORBIDDEN' } })
    expect(answer.headers['set-cookie']).toBeUndefined()
  }
})

test('a refusal is a security event that names the principal, and no secret', async () => {
  const who = await principal(server, 'operator')
  const victim = await logIn(server, who.token)
  const headers = { cookie: victim.cookie, 'sec-fetch-site': 'cross-site', origin: 'https://evil.example' }
  await send(server, 'DELETE', '/api/clients/c1', headers)
  const read = async () => (await server.api.get(`/security-events?kind=cross_site&subject=${who.name}`)).body.items
  const [event] = await until(async () => ((await read()).length > 0 ? read() : undefined), 'the event')
  expect(event).toMatchObject({ kind: 'cross_site', severity: 'warning', principal: who.name, count: 1 })
  expect(event.detail).toContain('https://evil.example')
  expect(JSON.stringify(event)).not.toMatch(/sb[st]_[A-Za-z0-9]/)
  expect((await server.api.get('/clients/c1')).status).toBe(200)
})
