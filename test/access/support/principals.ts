import { expect } from 'vitest'
import type { Grant, Role } from '../../../schemas/principals.ts'
import { type Http, httpClient } from '../../support/http.ts'
import type { TestServer } from '../../support/server.ts'

export interface TestPrincipal {
  id: string
  name: string
  token: string
  tokenId: string
  api: Http
}

let number = 0
/** A name that no other test of this file uses. */
export const fresh = (prefix: string): string => `${prefix}-${++number}`

/** A principal as an administrator makes it, with its grants. */
export async function principal(
  server: Pick<TestServer, 'api' | 'http'>,
  role: Role,
  grants: Grant[] = [],
): Promise<TestPrincipal> {
  const name = fresh(role)
  const created = await server.api.post('/principals', { name, role })
  expect(created.status, JSON.stringify(created.body)).toBe(201)
  const { id } = created.body.principal
  if (grants.length > 0) {
    const put = await server.api.send('PUT', `/principals/${id}/grants`, grants)
    expect(put.status, JSON.stringify(put.body)).toBe(200)
  }
  const { items } = (await server.api.get(`/audit?subject=principal:${name}&kind=principal.created`)).body
  const { token } = created.body
  return { id, name, token, tokenId: items[0].after.token, api: httpClient(server.http, token) }
}

export const grant = (scope: Grant['scope'], change: Partial<Grant> = {}): Grant => ({
  scope,
  actions: ['*'],
  maxCommandsPerDay: 1_000_000,
  commandsPerMinute: 1_000_000,
  ...change,
})

/** Registers a client; answers its key. */
export async function client(server: Pick<TestServer, 'api'>, id: string, zones: string[] = []): Promise<string> {
  const { status, body } = await server.api.post('/clients', { id, zones })
  expect(status, JSON.stringify(body)).toBe(201)
  return body.clientKey
}
