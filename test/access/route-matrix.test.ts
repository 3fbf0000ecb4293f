import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Role } from '../../schemas/principals.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { grant, principal } from './support/principals.ts'
import { EXPECTATIONS, type Expectation, headOf, ROUTES, subjectIn } from './support/routes.ts'

let server: TestServer
const tokens = {} as Record<Role, string>

beforeAll(async () => {
  server = await startServer({ HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000 })
  for (const role of Role.options) {
    const { token } = await principal(server, role, role === 'operator' ? [grant({ zone: 'own' })] : [])
    tokens[role] = token
  }
})
afterAll(() => server.stop())

const expected = (route: Expectation, role: Role, scope: 'own' | 'other'): { status: number; code?: string } => {
  if (route.allowed === 'anyone') return { status: route.status }
  if (route.allowed === 'its client') return { status: 401, code: 'UNAUTHORIZED' }
  if (!route.allowed.includes(role)) return { status: 403, code: 'FORBIDDEN' }
  if (route.scoped && role === 'operator' && scope === 'other') return { status: 403, code: 'ACTION_NOT_ALLOWED' }
  return { status: route.status }
}

test('every route has a row, and every row a route', () => {
  expect(Object.keys(EXPECTATIONS).sort()).toEqual(ROUTES.map(({ name }) => name).sort())
  expect(ROUTES.length).toBeGreaterThan(40)
})

describe.each(ROUTES)('$name', ({ name, method }) => {
  const route = EXPECTATIONS[name] as Expectation

  for (const role of Role.options) {
    for (const scope of ['own', 'other'] as const) {
      const { status, code } = expected(route, role, scope)
      test(`${role}, ${scope} scope: ${code ?? status}`, async () => {
        const subject = await subjectIn(server, scope)
        const answer = await headOf(server, tokens[role], method, await route.request(server, subject))
        expect(answer).toMatchObject({ status, code })
      })
    }
  }

  test('nobody, a wrong token, a wrong key: UNAUTHORIZED, where anybody is asked', async () => {
    const request = await route.request(server, await subjectIn(server, 'own'))
    const answer = route.allowed === 'anyone' ? { status: route.status } : { status: 401, code: 'UNAUTHORIZED' }
    for (const secret of [undefined, `sbt_${'x'.repeat(43)}`, `sbk_${'x'.repeat(43)}`]) {
      expect(await headOf(server, secret, method, request)).toMatchObject(answer)
    }
  })

  test("a client's key opens its own doors and no others", async () => {
    const subject = await subjectIn(server, 'own')
    const another = await subjectIn(server, 'own')
    const request = await route.request(server, subject)
    const [own, foreign] =
      route.allowed === 'its client'
        ? [{ status: route.status }, route.foreign]
        : route.allowed === 'anyone'
          ? [{ status: route.status }, { status: route.status }]
          : [
              { status: 401, code: 'UNAUTHORIZED' },
              { status: 401, code: 'UNAUTHORIZED' },
            ]
    expect(await headOf(server, another.key, method, request)).toMatchObject(foreign as object)
    expect(await headOf(server, subject.key, method, request)).toMatchObject(own)
  })
})
