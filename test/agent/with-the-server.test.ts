import { afterAll, beforeAll, expect, test } from 'vitest'
import { Agent } from '../../agent/agent.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { startChild } from './support/child.ts'
import { temporaryDirectory, until } from './support/fixtures.ts'

const CHILD = new URL('./support/agent-child.ts', import.meta.url)
let server: TestServer

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

async function clientKeyOf(id: string): Promise<string> {
  const created = await server.api.post('/clients', { id })
  return created.body.clientKey
}

const send = (clientId: string, action: string, query = '?wait=10') =>
  server.api.post(`/commands${query}`, { clientId, action, payload: { copies: 2 } })

test('commands of the API run on the agent and their outcomes come back', async () => {
  const clientKey = await clientKeyOf('p1')
  const agent = new Agent({
    url: server.mqtt,
    clientId: 'p1',
    clientKey,
    journal: ':memory:',
    version: '1.2.3',
    handlers: { print: ({ payload }) => ({ printed: payload ?? null }) },
  })
  await agent.start()
  expect((await send('p1', 'print')).body).toMatchObject({ status: 'completed', result: { printed: { copies: 2 } } })
  expect((await send('p1', 'scan')).body).toMatchObject({ status: 'rejected', error: { code: 'UNKNOWN_ACTION' } })
  expect((await server.api.get('/clients/p1')).body).toMatchObject({
    presence: 'online',
    reported: { state: 'online', version: '1.2.3', journalId: agent.journalId },
  })
  await agent.stop()
})

test('a cancel reaches the running handler', async () => {
  const clientKey = await clientKeyOf('p2')
  let signal: AbortSignal | undefined
  const agent = new Agent({
    url: server.mqtt,
    clientId: 'p2',
    clientKey,
    journal: ':memory:',
    handlers: {
      print: (ctx) =>
        new Promise<never>((_, reject) => {
          signal = ctx.signal
          ctx.signal.addEventListener('abort', () => reject(ctx.signal.reason))
        }),
    },
  })
  await agent.start()
  const { id } = (await send('p2', 'print', '')).body
  await until(() => expect(signal).toBeDefined())
  await server.api.post(`/commands/${id}/cancel`, { reason: 'wrong paper' })
  await expect.poll(async () => (await server.api.get(`/commands/${id}`)).body.status).toBe('cancelled')
  await agent.stop()
})

test('kill -9 in the middle of a run: the command is outcome_unknown, and the agent goes on', async () => {
  using directory = temporaryDirectory()
  const clientKey = await clientKeyOf('p3')
  const journal = directory.file('journal.sqlite')
  await using child = startChild(CHILD, server.mqtt, journal, 'p3', clientKey)
  await child.said('connected')
  const { id } = (await send('p3', 'hang', '')).body
  await child.said('started')
  await child.kill()
  let hangs = 0
  const handlers = { hang: () => void hangs++, print: () => 'printed' }
  const agent = new Agent({ url: server.mqtt, clientId: 'p3', clientKey, journal, handlers })
  await agent.start()
  expect((await send('p3', 'print')).body).toMatchObject({ status: 'completed', result: 'printed' })
  expect((await server.api.get(`/commands/${id}`)).body).toMatchObject({ status: 'outcome_unknown' })
  expect(hangs).toBe(0)
  await agent.stop()
})
