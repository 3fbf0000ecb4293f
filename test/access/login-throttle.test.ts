import { afterAll, beforeAll, expect, test } from 'vitest'
import { expectProblem } from '../api/support.ts'
import { type Answer, httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { client, principal } from './support/principals.ts'

const LIMIT = 10
let server: TestServer
beforeAll(async () => {
  server = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: LIMIT })
})
afterAll(() => server.stop())

test('after too many failures an address is told to wait, and a right secret is let in all the same', async () => {
  const viewer = await principal(server, 'viewer')
  const key = await client(server, 'c1')
  const wrong = [
    () => httpClient(server.http, `sbt_${'x'.repeat(43)}`).get('/clients'),
    () => httpClient(server.http, `sbk_${'x'.repeat(43)}`).post('/clients/c1/ping'),
    () => httpClient(server.http, key).get('/clients'),
  ]
  for (let failure = 0; failure < LIMIT; failure++) {
    expectProblem(await (wrong[failure % wrong.length] as () => Promise<Answer>)(), 401, 'UNAUTHORIZED')
    // Neither a right token nor a request without any is a failure.
    expect((await viewer.api.get('/clients')).status).toBe(200)
    expect((await httpClient(server.http, undefined).get('/clients')).status).toBe(401)
  }
  for (const attempt of wrong) expectProblem(await attempt(), 429, 'RATE_LIMIT')
  const throttled = await httpClient(server.http, 'sbt_wrong').get('/clients')
  expect(throttled.headers.get('ratelimit-policy')).toBe(`"login";q=${LIMIT};w=60`)
  expect(throttled.headers.get('ratelimit')).toMatch(/^"login";r=0;t=\d+$/)
  expect(Number(throttled.headers.get('retry-after'))).toBeGreaterThan(0)

  expect((await viewer.api.get('/clients')).status).toBe(200)
  expect((await httpClient(server.http, key).post('/clients/c1/ping')).status).toBe(204)
  // One that was not known before, too.
  const another = await principal(server, 'viewer')
  expect((await another.api.get('/clients')).status).toBe(200)
})

test('a burst of bad logins shares its look-ups, and a good one in between is answered', async () => {
  const bad = Array.from({ length: 300 }, (_, index) => httpClient(server.http, `sbt_bad-${index}`).get('/clients'))
  const viewer = await principal(server, 'viewer')
  expect((await viewer.api.get('/clients')).status).toBe(200)
  expect(new Set((await Promise.all(bad)).map(({ status }) => status))).toEqual(new Set([429]))
  const rows = await server.sql(`select 1 from security_events where subject = '127.0.0.1' and kind = 'bad_key'`)
  expect(rows.length).toBeLessThanOrEqual(2)
})
