import { createHash, randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import { Problem } from '../../schemas/errors.ts'
import type { Role } from '../../schemas/principals.ts'
import type { Answer } from '../support/http.ts'
import type { TestServer } from '../support/server.ts'

/** A refusal as the contract words it: problem details, the code, its status, and a request id to ask about. */
export function expectProblem(answer: Answer, status: number, code: string): void {
  expect(answer).toMatchObject({ status, body: { status, code } })
  expect(answer.headers.get('content-type')).toContain('application/problem+json')
  expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  Problem.parse(answer.body)
}

/** What `fetch` answered, for requests that the client of the other tests would not send. */
export async function answerOf(response: Response): Promise<Answer> {
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Record<string, unknown>,
  }
}

/** Every row that a refused request must not leave behind. Alerts come by the clock, whatever is requested. */
export async function stored(server: TestServer): Promise<Record<string, number>> {
  const [row] = await server.sql<Record<string, number>>(`
    select (select count(*)::int from commands) as commands, (select count(*)::int from executions) as executions,
      (select count(*)::int from events where type not like 'alert.%') as events, (select count(*)::int from idempotency_keys) as keys,
      (select count(*)::int from clients) as clients, (select count(*)::int from zone_members) as zones,
      (select count(*)::int from actions) as actions`)
  return row as Record<string, number>
}

export async function createPrincipal(server: TestServer, role: Role, name: string = role): Promise<string> {
  const token = `sbt_${name}-${randomUUID()}`
  const principalId = randomUUID()
  await server.sql('insert into principals (id, name, role) values ($1, $2, $3)', [principalId, name, role])
  await server.sql('insert into tokens (id, principal_id, name, token_hash) values ($1, $2, $3, $4)', [
    randomUUID(),
    principalId,
    'test',
    createHash('sha256').update(token).digest(),
  ])
  return token
}

/** Lets an operator send and acknowledge whatever it likes. */
export async function grantEverything(server: TestServer, name: string): Promise<void> {
  const grants = [{ scope: '*', actions: ['*'], maxCommandsPerDay: 1_000_000, commandsPerMinute: 1_000_000 }]
  await server.sql('update principals set grants = $1 where name = $2', [JSON.stringify(grants), name])
}

/** Reads a list to its end, page by page. */
export async function readAll(server: TestServer, path: string, limit: number): Promise<Record<string, unknown>[]> {
  const items: Record<string, unknown>[] = []
  for (let cursor: string | null = ''; cursor !== null; ) {
    const separator = path.includes('?') ? '&' : '?'
    const page = await server.api.get(`${path}${separator}limit=${limit}${cursor ? `&cursor=${cursor}` : ''}`)
    expect(page.status).toBe(200)
    expect(page.body.items.length).toBeLessThanOrEqual(limit)
    items.push(...page.body.items)
    cursor = page.body.nextCursor
  }
  return items
}
