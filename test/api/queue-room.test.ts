import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

// A server counts what waits for a client only if it is not sure by what it counted before that there is room.

let server: TestServer

beforeAll(async () => {
  server = await startServer({ MAX_PENDING_PER_CLIENT: 5 })
})
afterAll(() => server.stop())

const register = (id: string, zones: string[] = []) => server.api.post('/clients', { id, zones })
const send = (target: Record<string, unknown>, more: Record<string, unknown> = {}) =>
  server.api.post('/commands', { ...target, action: 'print', ...more })
const pending = async (clientId: string): Promise<number> =>
  (await server.sql(`select 1 from executions where client_id = $1 and status = 'pending'`, [clientId])).length
/** How many of so many are accepted, one after the other. */
async function accepted(clientId: string, of: number): Promise<number> {
  let count = 0
  for (let index = 0; index < of; index++) if ((await send({ clientId })).status === 201) count++
  return count
}

/** Statements that store commands for the client have seen what there is, and wait. */
async function lockClient(id: string) {
  const holder = new pg.Client({ connectionString: server.database_.url })
  await holder.connect()
  await holder.query('begin')
  await holder.query('select 1 from clients where id = $1 for update', [id])
  return {
    async waiting(): Promise<number> {
      const waiting = `select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
      return (await server.sql(waiting)).length
    },
    release: () => holder.query('commit'),
    [Symbol.asyncDispose]: () => holder.end(),
  }
}

test('what a zone and everybody got since counts', async () => {
  await register('c1', ['A'])
  expect(await accepted('c1', 1)).toBe(1)
  expect((await send({ zone: 'A' })).body).toMatchObject({ total: 1 })
  expect((await send({ broadcast: true })).body).toMatchObject({ total: 1 })
  expect(await accepted('c1', 5)).toBe(2)
  expect(await pending('c1')).toBe(5)
})

test('what waits again, because it is retried, counts', async () => {
  await register('c2')
  const made = []
  for (let index = 0; index < 5; index++) made.push((await send({ clientId: 'c2' }, { ttlSeconds: 1 })).body.id)
  await until(async () => (await pending('c2')) === 0, 'they are expired')
  expect(await accepted('c2', 1)).toBe(1)
  for (const id of made.slice(1))
    expect((await server.api.post(`/commands/${id}/retry`, { ttlSeconds: 3600 })).body).toMatchObject({ retried: 1 })
  expect(await accepted('c2', 5)).toBe(0)
  expect(await pending('c2')).toBe(5)
})

test.each([
  ['c3', 'a client and then a zone'],
  ['c4', 'a zone and then a client'],
])('what %s gets at one moment from a command for %s, neither of which saw the other, counts', async (id) => {
  await register(id, [id])
  const targets = [{ clientId: id }, { zone: id }]
  if (id === 'c4') targets.reverse()
  await using lock = await lockClient(id)
  const answers: ReturnType<typeof send>[] = []
  for (const target of targets) {
    answers.push(send(target))
    await until(async () => (await lock.waiting()) === answers.length, 'the command waits')
  }
  await lock.release()
  for (const answer of answers) expect((await answer).status).toBe(201)
  expect(await accepted(id, 5)).toBe(3)
  expect(await pending(id)).toBe(5)
})

test('what waits again while another command is being stored counts', async () => {
  await register('c5')
  const { body } = await send({ clientId: 'c5' }, { ttlSeconds: 1 })
  await until(async () => (await pending('c5')) === 0, 'it is expired')
  // Whoever knows something counts no more.
  expect((await send({ broadcast: true })).status).toBe(201)
  await using lock = await lockClient('c5')
  const stored = send({ clientId: 'c5' })
  await until(async () => (await lock.waiting()) === 1, 'the command waits')
  await server.api.post(`/commands/${body.id}/retry`, { ttlSeconds: 3600 })
  await until(async () => (await pending('c5')) === 2, 'it waits again')
  await lock.release()
  expect((await stored).status).toBe(201)
  expect(await accepted('c5', 5)).toBe(2)
})

test('what has no room takes none, and what leaves the queue makes room', async () => {
  await register('c6')
  expect(await accepted('c6', 8)).toBe(5)
  const [oldest] = await server.sql(
    `select command_id from executions where client_id = 'c6' order by command_id limit 1`,
  )
  await server.api.post(`/commands/${oldest?.command_id}/cancel`)
  expect(await accepted('c6', 3)).toBe(1)
})
