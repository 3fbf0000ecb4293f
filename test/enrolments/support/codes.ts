import { randomBytes } from 'node:crypto'
import { expect } from 'vitest'
import type { CreatedEnrolment, CreateEnrolment } from '../../../schemas/enrolments.ts'
import { type Answer, httpClient } from '../../support/http.ts'
import type { TestServer } from '../../support/server.ts'

/** A code as an administrator makes it. */
export async function enrolment(
  server: Pick<TestServer, 'api'>,
  options: CreateEnrolment = {},
): Promise<{ id: string; code: string }> {
  const { status, body } = await server.api.post('/enrolments', options)
  expect(status, JSON.stringify(body)).toBe(201)
  const { enrolment: created, code } = body as CreatedEnrolment
  return { id: created.id, code }
}

/** What a device sends, which has no token. */
// biome-ignore lint/suspicious/noExplicitAny: tests read fields of many shapes and assert on them
export const redeem = (server: Pick<TestServer, 'http'>, body: unknown): Promise<Answer<any>> =>
  httpClient(server.http, undefined).post('/enrolments/redeem', body)

export const newKey = (): string => `sbk_${randomBytes(32).toString('base64url')}`

/** How often each enrolment was used, by the database. */
export async function usesOf(server: Pick<TestServer, 'sql'>, id: string): Promise<{ uses: number; clients: number }> {
  const [row] = await server.sql<{ uses: number; clients: number }>(
    `select uses, (select count(*)::int from clients where enrolment_id = $1) as clients from enrolments where id = $1`,
    [id],
  )
  return row as { uses: number; clients: number }
}
