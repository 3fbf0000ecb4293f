import { afterAll, beforeAll, expect, test } from 'vitest'
import { startDevice } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

test('a command goes to its client and its outcome comes back, each step in the timeline', async () => {
  const device = await startDevice(server, 'printer-1')
  const waiting = server.api.post('/commands?wait=10', {
    clientId: 'printer-1',
    action: 'print',
    payload: { copies: 2 },
  })
  const { messageId, payload } = await device.nextCommand()
  expect(payload).toMatchObject({ type: 'command', attempt: 1, action: 'print', payload: { copies: 2 }, priority: 5 })
  device.ack(messageId)
  const id = payload.id as string
  await device.report(id, { status: 'running', attempt: 1 })
  await device.report(id, { status: 'completed', attempt: 1, result: { pages: 2 } })
  const answered = await waiting
  expect(answered.status).toBe(201)
  expect(answered.headers.get('location')).toBe(`/api/commands/${id}`)
  expect(answered.body).toMatchObject({
    id,
    status: 'completed',
    result: { pages: 2 },
    counts: { completed: 1 },
    total: 1,
  })
  const timeline = await server.api.get(`/commands/${id}/timeline`)
  expect(timeline.body.items.map((event: { type: string }) => event.type)).toEqual([
    'command.created',
    'execution.queued',
    'execution.delivered',
    'execution.running',
    'execution.completed',
  ])
  await device.end()
})
