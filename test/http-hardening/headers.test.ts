import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { issueCertificate, tlsSettings } from '../support/certificate.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { send } from './support/browser.ts'

const ALWAYS = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
}
const bearer = { authorization: `Bearer ${ADMIN_TOKEN}` }
const TRUSTED = 'https://app.example.com'

let server: TestServer
let open: TestServer
beforeAll(async () => {
  server = await startServer()
  open = await startServer({ HTTP_ALLOWED_ORIGINS: `${TRUSTED}, http://localhost:5173`, HTTP_TLS_PROXY: 'true' })
})
afterAll(async () => {
  await server.stop()
  await open.stop()
})

describe('every answer has the headers that keep it an answer', () => {
  test.each([
    ['GET', '/api/clients', bearer, 200],
    ['GET', '/api/clients', {}, 401],
    ['POST', '/api/clients', bearer, 400],
    ['GET', '/api/nothing', bearer, 404],
    ['GET', '/nothing', {}, 404],
    ['DELETE', '/api/clients', bearer, 404],
    ['OPTIONS', '/api/clients', {}, 200],
    ['HEAD', '/api/clients', bearer, 200],
    ['GET', '/health', {}, 200],
    ['GET', '/health/live', {}, 200],
    ['GET', '/metrics', {}, 200],
    ['POST', '/api/session', {}, 400],
  ])('%s %s: %j', async (method, path, headers, status) => {
    const answer = await send(server, method, path, headers)
    expect(answer.status).toBe(status)
    expect(answer.headers).toMatchObject(ALWAYS)
    for (const name of ['strict-transport-security', 'server', 'x-powered-by', 'access-control-allow-origin']) {
      expect(answer.headers[name], name).toBeUndefined()
    }
  })

  test('a stream too', async () => {
    const leaving = new AbortController()
    const stream = await fetch(`${server.http}/api/events`, { headers: bearer, signal: leaving.signal })
    for (const [name, value] of Object.entries(ALWAYS)) expect(stream.headers.get(name)).toBe(value)
    leaving.abort()
  })
})

describe('pages of other origins (CORS)', () => {
  const preflight = { 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' }

  test.each([TRUSTED, 'https://evil.example', 'null', '*'])('are told nothing by default: %s', async (origin) => {
    for (const headers of [
      { origin, ...bearer },
      { origin, ...preflight },
    ]) {
      const answer = await send(
        server,
        'access-control-request-method' in headers ? 'OPTIONS' : 'GET',
        '/api/clients',
        headers,
      )
      expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
    }
  })

  test.each([
    'https://evil.example',
    'null',
    '*',
    'http://app.example.com',
    'https://app.example.com:8443',
    'https://app.example.com.evil.example',
    'https://sub.app.example.com',
    'https://APP.example.com',
    `${TRUSTED}/`,
    `${TRUSTED}, http://localhost:5173`,
  ])('that are not in HTTP_ALLOWED_ORIGINS are told nothing: %s', async (origin) => {
    for (const [method, headers] of [
      ['GET', bearer],
      ['OPTIONS', preflight],
    ] as const) {
      const answer = await send(open, method, '/api/clients', { origin, ...headers })
      expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
      expect(answer.headers.vary).toBe('Origin')
    }
  })

  test.each([TRUSTED, 'http://localhost:5173'])(
    'that are, may call with a token and never with a cookie: %s',
    async (origin) => {
      const asked = await send(open, 'OPTIONS', '/api/commands', { origin, ...preflight })
      expect(asked.status).toBe(204)
      expect(asked.headers).toMatchObject({ ...ALWAYS, 'access-control-allow-origin': origin, vary: 'Origin' })
      expect(asked.headers['access-control-allow-headers']).toContain('Authorization')
      for (const [headers, status] of [
        [bearer, 200],
        [{}, 401],
      ] as const) {
        const answer = await send(open, 'GET', '/api/clients', { origin, ...headers })
        expect(answer.status).toBe(status)
        expect(answer.headers['access-control-allow-origin']).toBe(origin)
        expect(answer.headers['access-control-expose-headers']).toContain('Retry-After')
      }
      for (const answer of [asked, await send(open, 'GET', '/api/clients', { origin, ...bearer })]) {
        expect(answer.headers['access-control-allow-credentials']).toBeUndefined()
      }
      const login = await send(open, 'POST', '/api/session', { origin }, { token: ADMIN_TOKEN })
      expect(login).toMatchObject({ status: 403, body: { code: 'FORBIDDEN' } })
    },
  )

  test.each(['*', 'app.example.com', `${TRUSTED}/`, `${TRUSTED}/path`, 'https://*.example.com', 'ftp://x', 'null'])(
    'HTTP_ALLOWED_ORIGINS=%s is no list of origins',
    async (list) => {
      await expect(startServer({ HTTP_ALLOWED_ORIGINS: list })).rejects.toThrow('HTTP_ALLOWED_ORIGINS')
    },
  )
})

const TLS_COOKIE = /^__Host-signalbox=sbs_[A-Za-z0-9_-]{43}; Path=\/; Secure; HttpOnly; SameSite=Strict$/

test('behind a proxy that speaks TLS the cookie is Secure, and browsers are told to stay with TLS', async () => {
  const login = await send(open, 'POST', '/api/session', {}, { token: ADMIN_TOKEN })
  expect(login.headers['set-cookie']?.[0]).toMatch(TLS_COOKIE)
  expect(login.headers['strict-transport-security']).toBe('max-age=31536000')
  const secret = /sbs_[^;]+/.exec(login.headers['set-cookie']?.[0] as string)?.[0]
  const by = async (name: string) => (await send(open, 'GET', '/api/session', { cookie: `${name}=${secret}` })).status
  expect(await by('__Host-signalbox')).toBe(200)
  // Anybody on the way, or another site of the same domain, could have set this one.
  expect(await by('signalbox')).toBe(401)
})

describe.skipIf(!hasTool('openssl', 'openssl'))('over TLS', () => {
  const folder = mkdtempSync(join(tmpdir(), 'signalbox-headers-'))
  let tls: TestServer
  beforeAll(async () => {
    issueCertificate(folder, 'headers')
    tls = await startServer(tlsSettings(folder))
  })
  afterAll(async () => {
    await tls.stop()
    rmSync(folder, { recursive: true })
  })

  const overTls = (method: string, path: string, headers: Record<string, string>, body?: unknown) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      const options = { method, headers, ca: readFileSync(join(folder, 'server.crt')), agent: false }
      request(`${tls.tls?.https}${path}`, options, (answer) => {
        answer.resume().on('end', () => resolve(answer))
      })
        .on('error', reject)
        .end(body === undefined ? undefined : JSON.stringify(body))
    })

  test('the cookie is Secure, and HSTS is said', async () => {
    const login = await overTls('POST', '/api/session', {}, { token: ADMIN_TOKEN })
    expect(login.statusCode).toBe(201)
    expect(login.headers['set-cookie']?.[0]).toMatch(TLS_COOKIE)
    expect(login.headers).toMatchObject({ ...ALWAYS, 'strict-transport-security': 'max-age=31536000' })
    const cookie = login.headers['set-cookie']?.[0]?.split(';')[0] as string
    expect((await overTls('GET', '/api/session', { cookie })).statusCode).toBe(200)
    expect((await overTls('GET', '/api/clients', { cookie, 'sec-fetch-site': 'cross-site' })).statusCode).toBe(403)
  })

  test('the plain listener beside it says no HSTS', async () => {
    expect((await send(tls, 'GET', '/health/live')).headers['strict-transport-security']).toBeUndefined()
  })
})
