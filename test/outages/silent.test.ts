import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectProblem } from '../api/support.ts'
import { register, returnCodeOf } from '../broker/support/scene.ts'
import { startDevice } from '../support/device.ts'
import { until } from '../support/until.ts'
import { type Breakable, healthy, IN_TIME_MS, startBreakable, timed } from './support.ts'

let scene: Breakable
beforeAll(async () => {
  scene = await startBreakable()
  await scene.server.api.post('/clients', { id: 'c1' })
})
afterAll(() => scene.stop())

describe('while PostgreSQL says nothing', () => {
  test('each request is UNAVAILABLE in time, also those that wait for their turn behind others', async () => {
    expect((await scene.server.api.post('/commands', { clientId: 'c1', action: 'print' })).status).toBe(201)
    scene.network.freeze()
    const answers = []
    for (let index = 0; index < 12; index++) {
      answers.push(timed(scene.server.api.post('/commands', { clientId: 'c1', action: 'print' })))
      await sleep(150)
    }
    const answered = await Promise.all(answers)
    scene.network.thaw()
    await healthy(scene.server)
    for (const { answer, ms } of answered) {
      expectProblem(answer, 503, 'UNAVAILABLE')
      expect(ms).toBeLessThan(IN_TIME_MS)
    }
  })
})

describe('when a statement was carried out, and its answer is lost', () => {
  let locker: pg.Client
  beforeAll(async () => {
    locker = new pg.Client({ connectionString: scene.database.url })
    await locker.connect()
  })
  afterAll(() => locker.end())

  test('whoever waits for the outcome hears of it when the database is back', async () => {
    const { server, network, database } = scene
    const device = await startDevice(server, 'c2')
    const waiting = timed(server.api.post('/commands?wait=30', { clientId: 'c2', action: 'print' }))
    const { messageId, payload } = await device.nextCommand()
    device.ack(messageId)
    await device.report(payload.id as string, { status: 'running' })
    // The row is locked until nothing is heard any more.
    await locker.query('begin')
    await locker.query('select 1 from executions where command_id = $1 for update', [payload.id])
    const reported = device.report(payload.id as string, { status: 'completed' })
    const blocked = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    await until(async () => (await database.query(blocked)).length > 0, 'the report at the lock')
    network.mute()
    await locker.query('commit')
    await until(
      async () => (await database.query(`select 1 from executions where status = 'completed'`)).length > 0,
      'the report is stored',
    )
    network.cut()
    network.thaw()
    network.mend()
    await reported
    const { answer, ms } = await waiting
    expect(answer).toMatchObject({ status: 201, body: { status: 'completed' } })
    expect(ms).toBeLessThan(10_000)
    await device.end()
  })

  test('a client whose login was refused for it is not shown online', async () => {
    const { server, network, database } = scene
    const password = Buffer.from(await register(server, 'c3'))
    const login = { clientId: 'c3', username: 'c3', password }
    expect(await returnCodeOf(server, login)).toBe(0)
    const isOnline = async (): Promise<boolean> =>
      (await database.query(`select 1 from clients where id = 'c3' and session_epoch is not null`)).length > 0
    await until(async () => !(await isOnline()), 'the end of the first session')
    network.mute()
    expect(await returnCodeOf(server, login)).toBe(3)
    expect(await isOnline()).toBe(true)
    network.cut()
    network.thaw()
    network.mend()
    await until(async () => !(await isOnline()), 'offline')
    const { body } = await server.api.get('/clients/c3')
    expect(body.presence).toBe('offline')
  })
})

test('a command that waits again, which nobody was told of, counts against the limit of its client', async () => {
  const scene = await startBreakable({ MAX_PENDING_PER_CLIENT: 2 })
  const { server, network, database } = scene
  const locker = new pg.Client({ connectionString: database.url })
  await locker.connect()
  try {
    await server.api.post('/clients', { id: 'c1' })
    const send = (more = {}) => server.api.post('/commands', { clientId: 'c1', action: 'print', ...more })
    const [first] = [await send({ ttlSeconds: 1 }), await send({ ttlSeconds: 1 })]
    const pending = async (): Promise<number> =>
      (await database.query(`select 1 from executions where status = 'pending'`)).length
    await until(async () => (await pending()) === 0, 'they are expired')
    expect((await send()).status).toBe(201)
    await locker.query('begin')
    await locker.query('select 1 from executions where command_id = $1 for update', [first.body.id])
    const retried = server.api.post(`/commands/${first.body.id}/retry`, { ttlSeconds: 3600 })
    const blocked = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    await until(async () => (await database.query(blocked)).length > 0, 'the retry at the lock')
    network.mute()
    await locker.query('commit')
    await until(async () => (await pending()) === 2, 'it waits again')
    expectProblem(await retried, 503, 'UNAVAILABLE')
    network.cut()
    network.thaw()
    network.mend()
    await healthy(server)
    expectProblem(await send(), 429, 'QUEUE_FULL')
  } finally {
    await locker.end()
    await scene.stop()
  }
})

test('a connection that is lost without a word fails one request at most', async () => {
  const scene = await startBreakable({ SWEEP_INTERVAL_SECONDS: 3600 })
  try {
    await healthy(scene.server)
    scene.network.lose()
    const answers = []
    // As many as there may be connections.
    for (let index = 0; index < 12; index++) answers.push((await fetch(`${scene.server.http}/health`)).status)
    expect(answers.at(-1)).toBe(200)
  } finally {
    await scene.stop()
  }
})
