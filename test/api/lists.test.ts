import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Device, startDevice } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { expectProblem, readAll } from './support.ts'

let server: TestServer
let device: Device

beforeAll(async () => {
  server = await startServer()
  device = await startDevice(server, 'live', { zones: ['A', 'B'], name: 'Live Printer' })
  await server.api.post('/clients', { id: 'away', zones: ['B'] })
  await server.api.post('/clients', { id: 'off', name: '100% off_line' })
  await server.api.post('/clients/off/disable')
})
afterAll(async () => {
  await device.end()
  await server.stop()
})

const ids = (items: unknown): string[] => (items as { id: string }[]).map(({ id }) => id)
const send = async (body: Record<string, unknown>): Promise<string> => {
  const answer = await server.api.post('/commands', body)
  expect(answer.status).toBe(201)
  return answer.body.id
}

test('commands are newest first, and pages of any size have no gap and no duplicate', async () => {
  const sent: string[] = []
  for (let round = 0; round < 12; round++) {
    sent.push(...(await Promise.all(Array.from({ length: 10 }, () => send({ clientId: 'away', action: 'many' })))))
  }
  const expected = [...sent].sort().reverse()
  for (const limit of [1, 7, 50, 119, 120, 121, 200]) {
    expect(ids(await readAll(server, '/commands?action=many', limit))).toEqual(expected)
  }
  const first = await server.api.get('/commands?action=many')
  expect(first.body.items).toHaveLength(50)
  const times = (first.body.items as { createdAt: string }[]).map(({ createdAt }) => Date.parse(createdAt))
  expect(times.at(0)).toBeGreaterThanOrEqual(times.at(-1) as number)
})

test('what is created while a list is read comes on its first page only', async () => {
  const before = ids(await readAll(server, '/commands?action=many', 200))
  const first = await server.api.get('/commands?action=many&limit=60')
  const newer = await send({ clientId: 'away', action: 'many' })
  const second = await server.api.get(`/commands?action=many&limit=60&cursor=${first.body.nextCursor}`)
  expect(ids([...first.body.items, ...second.body.items])).toEqual(before)
  expect(second.body.nextCursor).toBeNull()
  expect((await server.api.get('/commands?limit=1')).body.items[0].id).toBe(newer)
})

test('commands by status, client and action, alone and together', async () => {
  const open = await send({ clientId: 'away', action: 'filter' })
  const withdrawn = await send({ clientId: 'away', action: 'filter' })
  await server.api.post(`/commands/${withdrawn}/cancel`)
  const done = await send({ clientId: 'live', action: 'filter' })
  const { messageId, payload } = await device.nextCommand()
  device.ack(messageId)
  await device.report(payload.id as string, { status: 'completed' })
  const other = await send({ clientId: 'away', action: 'other' })
  const listed = async (query: string) => ids((await server.api.get(`/commands?limit=200&${query}`)).body.items)

  expect(await listed('action=filter')).toEqual([done, withdrawn, open])
  expect(await listed('action=Filter')).toEqual([])
  expect(await listed('clientId=live')).toEqual([done])
  expect(await listed('clientId=away&action=filter')).toEqual([withdrawn, open])
  expect(await listed('status=completed')).toEqual([done])
  expect(await listed('status=cancelled')).toEqual([withdrawn])
  expect((await listed('status=pending')).slice(0, 2)).toEqual([other, open])
  expect(await listed('status=pending&clientId=live')).toEqual([])
  expect(await listed('clientId=nobody')).toEqual([])
})

test('commands created from one instant on and before another', async () => {
  const created: { id: string; createdAt: string; at: number }[] = []
  for (let index = 0; index < 3; index++) {
    await until(() => Date.now() > (created.at(-1)?.at ?? 0) + 2)
    const { body } = await server.api.post('/commands', { clientId: 'away', action: 'dated' })
    created.push({ id: body.id as string, createdAt: body.createdAt as string, at: Date.parse(body.createdAt) })
  }
  const [one, two, three] = created as [(typeof created)[0], (typeof created)[0], (typeof created)[0]]
  const listed = async (query: string) => ids((await server.api.get(`/commands?action=dated&${query}`)).body.items)
  expect(await listed(`createdAfter=${two.createdAt}`)).toEqual([three.id, two.id])
  expect(await listed(`createdBefore=${two.createdAt}`)).toEqual([one.id])
  expect(await listed(`createdAfter=${two.createdAt}&createdBefore=${three.createdAt}`)).toEqual([two.id])
  const local = new Date(two.at + 23 * 3_600_000).toISOString().replace('Z', '+23:00')
  expect(await listed(`createdAfter=${encodeURIComponent(local)}`)).toEqual([three.id, two.id])
})

test('clients by zone, presence, whether they are disabled, and a word of their id or name', async () => {
  const listed = async (query: string) => ids((await server.api.get(`/clients?${query}`)).body.items)
  expect(await listed('')).toEqual(['away', 'live', 'off'])
  expect(await listed('zone=A')).toEqual(['live'])
  expect(await listed('zone=B')).toEqual(['away', 'live'])
  expect(await listed('zone=C')).toEqual([])
  expect(await listed('presence=online')).toEqual(['live'])
  expect(await listed('presence=offline')).toEqual(['away', 'off'])
  expect(await listed('disabled=true')).toEqual(['off'])
  expect(await listed('disabled=false')).toEqual(['away', 'live'])
  expect(await listed('zone=B&presence=offline&disabled=false')).toEqual(['away'])
  expect(await listed('q=PRINTER')).toEqual(['live'])
  expect(await listed('q=aw')).toEqual(['away'])
  expect(await listed('q=%25')).toEqual(['off'])
  expect(await listed('q=_')).toEqual(['off'])
  expect(await listed("q='")).toEqual([])
})

test('clients are listed by id, page by page', async () => {
  const made = Array.from({ length: 25 }, (_, index) => `page.${String(index).padStart(2, '0')}`)
  await Promise.all(made.map((id) => server.api.post('/clients', { id, zones: ['pages'] })))
  for (const limit of [1, 4, 25, 200]) expect(ids(await readAll(server, '/clients?zone=pages', limit))).toEqual(made)
})

test('lists by name order capitals, digits and signs the same on each page', async () => {
  const names = ['b', 'B', 'a', 'A', 'a-b', 'a.b', 'a_b', 'ab', '0', 'Z9', 'z']
  await Promise.all(names.map((id) => server.api.post('/clients', { id, zones: ['mixed'] })))
  const found = ids(await readAll(server, '/clients?zone=mixed', 1))
  expect(new Set(found)).toEqual(new Set(names))
  expect(found).toHaveLength(names.length)
  expect(ids(await readAll(server, '/clients?zone=mixed', 3))).toEqual(found)
})

test('actions are listed by name, page by page', async () => {
  const names = Array.from({ length: 9 }, (_, index) => `act-${index}`)
  await Promise.all(names.map((name) => server.api.send('PUT', `/actions/${name}`, {})))
  const listed = await readAll(server, '/actions', 2)
  expect(listed.map(({ name }) => name)).toEqual(names)
})

test('the executions of a command, all and by status', async () => {
  const id = await send({ clientId: 'away', action: 'print' })
  const all = await server.api.get(`/commands/${id}/executions`)
  expect(all).toMatchObject({
    status: 200,
    body: { items: [{ commandId: id, clientId: 'away', status: 'pending', attempt: 1 }], nextCursor: null },
  })
  expect((await server.api.get(`/commands/${id}/executions?status=pending`)).body.items).toHaveLength(1)
  expect((await server.api.get(`/commands/${id}/executions?status=completed`)).body.items).toEqual([])
  const past = Buffer.from('away').toString('base64url')
  expect((await server.api.get(`/commands/${id}/executions?cursor=${past}`)).body.items).toEqual([])
})

test('a timeline is in order, and pages of it have no gap and no duplicate', async () => {
  const id = await send({ clientId: 'live', action: 'long' })
  const { messageId } = await device.nextCommand()
  device.ack(messageId)
  for (let done = 0; done < 30; done++) await device.report(id, { status: 'running', progress: { done, total: 30 } })
  await device.report(id, { status: 'completed' })
  const whole = (await server.api.get(`/commands/${id}/timeline?limit=200`)).body
  expect(whole.nextCursor).toBeNull()
  const types = (whole.items as { type: string }[]).map(({ type }) => type)
  expect(types.slice(0, 3)).toEqual(['command.created', 'execution.queued', 'execution.delivered'])
  expect(types.at(-1)).toBe('execution.completed')
  expect(types.filter((type) => type === 'execution.running')).toHaveLength(1)
  const steps = (whole.items as { data: { progress?: { done: number } } }[]).flatMap(
    ({ data }) => data.progress?.done ?? [],
  )
  expect(steps).toEqual([...steps].sort((a, b) => a - b))
  expect(steps.at(-1)).toBe(29)
  for (const limit of [1, 7, 33]) expect(await readAll(server, `/commands/${id}/timeline`, limit)).toEqual(whole.items)
  expect((await readAll(server, `/commands/${id}/timeline?clientId=live`, 50)).length).toBe(whole.items.length)
  expect(await readAll(server, `/commands/${id}/timeline?clientId=away`, 50)).toEqual([])
})

test('a cursor of one list is refused by another', async () => {
  const { body } = await server.api.get('/clients?limit=1')
  expectProblem(await server.api.get(`/commands?cursor=${body.nextCursor}`), 400, 'INVALID_INPUT')
})
