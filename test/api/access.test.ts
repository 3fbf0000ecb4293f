import { createHash, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiRoutes } from '../../api/server.ts'
import type { Control } from '../../control/control.ts'
import { parseSettings } from '../../schemas/settings.ts'
import { httpClient } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { createPrincipal, expectProblem, stored } from './support.ts'

/** Only read as data: no handler is called. */
const allRoutes = apiRoutes({ settings: parseSettings({}) } as Control).map(({ method, path, permission }) => ({
  method,
  path,
  permission,
}))
const routes = allRoutes.filter(({ permission }) => permission !== 'client' && permission !== 'anyone')
const clientDoors = allRoutes.filter(({ permission }) => permission === 'client')

let server: TestServer
let clientKey: string
let commandId: string

beforeAll(async () => {
  // Hundreds of wrong tokens come from one address here.
  server = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000 })
  clientKey = (await server.api.post('/clients', { id: 'c1' })).body.clientKey
  commandId = (await server.api.post('/commands', { clientId: 'c1', action: 'print' })).body.id
  await server.api.send('PUT', '/actions/print', {})
})
afterAll(() => server.stop())

const NO_ALERT = '0198c0de-0000-7000-8000-000000000000'

/** The route with things that exist, so that only the right to it is in question. */
const real = (path: string): string =>
  path
    .replace(':name', 'print')
    .replace(':id', path.startsWith('/commands') ? commandId : path.startsWith('/alerts') ? NO_ALERT : 'c1')
    .replace(':clientId', 'c1')
    .replace(':zone', 'A')

async function refused(token: string | undefined, method: string, path: string, status: number, code: string) {
  const before = await stored(server)
  const answer = await httpClient(server.http, token).send(method.toUpperCase(), real(path))
  expectProblem(answer, status, code)
  expect(answer.headers.get('www-authenticate')).toBe(status === 401 ? 'Bearer' : null)
  expect(await stored(server)).toEqual(before)
}

test('the list of routes is the one that is served', () => {
  expect(routes.length).toBeGreaterThan(15)
})

test('what asks for no login is known by name', () => {
  const open = allRoutes.filter(({ permission }) => permission === 'anyone')
  expect(open.map(({ method, path }) => `${method} ${path}`)).toEqual(['post /enrolments/redeem', 'post /session'])
})

describe.each(routes)('$method $path', ({ method, path }) => {
  test('without a token, and with a wrong one, is UNAUTHORIZED', async () => {
    await refused(undefined, method, path, 401, 'UNAUTHORIZED')
    await refused('sbt_wrong-0123456789-0123456789', method, path, 401, 'UNAUTHORIZED')
  })
  test('with a client key is UNAUTHORIZED', () => refused(clientKey, method, path, 401, 'UNAUTHORIZED'))
})

describe.each(clientDoors)("a client's own door: $method $path", ({ method, path }) => {
  test("opens to no token, no principal's token and no wrong key", async () => {
    await refused(undefined, method, path, 401, 'UNAUTHORIZED')
    await refused(`sbk_${'x'.repeat(43)}`, method, path, 401, 'UNAUTHORIZED')
    for (const role of ['admin', 'operator', 'viewer'] as const) {
      await refused(await createPrincipal(server, role, `${role}-${randomUUID()}`), method, path, 401, 'UNAUTHORIZED')
    }
  })
})

test('a token counts only while it is neither expired nor revoked', async () => {
  const issue = async (changes: string): Promise<string> => {
    const token = await createPrincipal(server, 'viewer', `v-${randomUUID()}`)
    const hash = createHash('sha256').update(token).digest()
    await server.sql(`update tokens set ${changes} where token_hash = $1`, [hash])
    return token
  }
  const status = async (token: string) => (await httpClient(server.http, token).get('/commands')).status
  expect(await status(await issue(`expires_at = clock_timestamp() - interval '1 second'`))).toBe(401)
  expect(await status(await issue(`expires_at = clock_timestamp() + interval '1 hour'`))).toBe(200)
  expect(await status(await issue('revoked_at = clock_timestamp()'))).toBe(401)
})

test.each([
  ['another scheme', 'Basic YWRtaW46c2J0XzE='],
  ['no scheme', 'sbt_test-administrator-0123456789'],
  ['an empty token', 'Bearer '],
  ['two tokens', 'Bearer sbt_test-administrator-0123456789 sbt_x'],
  ['a token in other letters', 'Bearer SBT_TEST-ADMINISTRATOR-0123456789'],
])('%s is UNAUTHORIZED', async (_name, authorization) => {
  const answer = await httpClient(server.http, undefined).send('GET', '/commands', undefined, { authorization })
  expectProblem(answer, 401, 'UNAUTHORIZED')
})

test('the word Bearer may be written in any case [RFC 9110, 11.1]', async () => {
  const authorization = 'bearer sbt_test-administrator-0123456789'
  expect((await httpClient(server.http, undefined).send('GET', '/commands', undefined, { authorization })).status).toBe(
    200,
  )
})

test('who may not is told so before the input is judged', async () => {
  const viewer = httpClient(server.http, await createPrincipal(server, 'viewer', `v-${randomUUID()}`))
  expectProblem(await viewer.post('/commands', { nonsense: true }), 403, 'FORBIDDEN')
  expectProblem(await viewer.send('DELETE', '/clients/nobody'), 403, 'FORBIDDEN')
  const nobody = httpClient(server.http, undefined)
  expectProblem(await nobody.post('/commands', { nonsense: true }), 401, 'UNAUTHORIZED')
  expectProblem(await nobody.get('/clients/nobody'), 401, 'UNAUTHORIZED')
})

test('health and only health is open to everybody', async () => {
  const nobody = httpClient(server.http, undefined)
  for (const path of ['/health', '/health/live', '/health/ready']) expect((await nobody.get(path)).status).toBe(200)
})

test('no answer and no log line has a token', () => {
  const logs = JSON.stringify(server.logs)
  expect(logs).not.toContain('sbt_')
  expect(logs).not.toContain('sbk_')
})
