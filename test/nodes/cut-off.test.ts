import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { register, untilStatus } from '../broker/support/scene.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { type Network, startNetwork } from '../support/database-faults.ts'
import type { Device } from '../support/device.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'
import type { TestServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { complete, enter, type Pair, send, startPair, untilRedis } from './support/pair.ts'
import { openSlowLine, type SlowLine } from './support/slow-line.ts'

const LEASE_SECONDS = 1.5

describe.skipIf(!hasTool('redis-server', 'redis-server'))('a node that is cut off', () => {
  let redis: TestRedis
  let toRedis: SlowLine
  let database: TestDatabase
  let toPostgres: Network
  let nodes: Pair
  let keys: Map<string, string>
  let cut: TestServer
  let free: TestServer

  beforeEach(async () => {
    redis = await startRedis()
    toRedis = await openSlowLine(redis.port)
    database = await createTestDatabase()
  })

  /** The older node is the one that does what has to be done once. */
  async function startCutting(which: 'a' | 'b'): Promise<void> {
    toPostgres = await startNetwork(database)
    const common = { SWEEP_INTERVAL_SECONDS: 0.2, NODE_LEASE_SECONDS: LEASE_SECONDS }
    nodes = await startPair(
      (node) =>
        node === which
          ? { ...common, REDIS_URL: toRedis.url, DATABASE_URL: toPostgres.url }
          : { ...common, REDIS_URL: redis.url },
      database,
    )
    cut = nodes[which]
    free = nodes[which === 'a' ? 'b' : 'a']
    keys = new Map()
    for (const id of ['stays', 'moves', 'works', 'other']) keys.set(id, await register(free, id))
  }

  afterEach(async () => {
    toPostgres.mend()
    await nodes.stop()
    await toPostgres.stop()
    await toRedis.stop()
    await redis.stop()
  })

  const join = (server: TestServer, id: string): Promise<Device> => enter(server, id, keys.get(id) as string)

  const owners = async (): Promise<Record<string, boolean>> => {
    const rows = await database.query<{ id: string; owned: boolean }>(
      `select k.id, k.session_epoch is not null
         and exists (select 1 from nodes n where n.id = k.session_node and n.expires_at > clock_timestamp()) as owned
       from clients k`,
    )
    return Object.fromEntries(rows.map(({ id, owned }) => [id, owned]))
  }

  /** Each command ended once, and its device got it once. */
  async function judge(ids: string[], devices: Device[]): Promise<void> {
    for (const id of ids) {
      await untilStatus(free, id, 'completed')
      const got = devices.flatMap((device) => device.received().filter(({ payload }) => payload.id === id))
      expect(got, id).toHaveLength(1)
      const events = await database.query(
        `select 1 from events where command_id = $1 and type = 'execution.completed'`,
        [id],
      )
      expect(events, id).toHaveLength(1)
    }
  }

  test('from Redis: it serves its own, and both hear of each other by PostgreSQL', async () => {
    await startCutting('b')
    const [stays, other] = [await join(cut, 'stays'), await join(free, 'other')]
    toRedis.cut()
    await untilRedis(cut, 'down')
    const ids = [await send(free, { clientId: 'stays' }), await send(cut, { clientId: 'other' })]
    await Promise.all([complete(stays), complete(other)])
    const moved = await join(free, 'stays')
    await stays.whenClosed()
    toRedis.mend()
    await untilRedis(cut, 'up')
    ids.push(await send(cut, { clientId: 'stays' }))
    await complete(moved)
    await judge(ids, [stays, other, moved])
    expect(await owners()).toMatchObject({ stays: true, other: true, moves: false })
  })

  test.each([
    ['PostgreSQL', false, 'b'],
    ['both', true, 'b'],
    ['PostgreSQL while it leads', false, 'a'],
    ['both while it leads', true, 'a'],
  ] as const)(
    'its sessions end by its lease, and its sockets when it is back: cut off from %s',
    async (_from, cutRedis, which) => {
      await startCutting(which)
      const devices = [await join(cut, 'stays'), await join(cut, 'moves'), await join(cut, 'works')]
      const [stays, moves, works] = devices as [Device, Device, Device]
      const other = await join(free, 'other')
      const ids = [await send(free, { clientId: 'works' })]
      const inHand = await works.nextCommand()
      works.ack(inHand.messageId)
      await untilStatus(free, ids[0] as string, 'delivered')

      toPostgres.cut()
      if (cutRedis) toRedis.cut()
      // Its report is not acknowledged before it is committed.
      const reporting = works.report(ids[0] as string, { status: 'completed', attempt: 1 })
      let acknowledged = false
      reporting.then(
        () => {
          acknowledged = true
        },
        () => undefined,
      )
      for (const id of ['stays', 'moves', 'works'])
        await until(async () => (await free.api.get(`/clients/${id}`)).body.presence === 'offline', `${id} is ended`)
      expect(acknowledged).toBe(false)
      // The sockets are still there; nothing is dispatched on them.
      await stays.ping()
      const moved = await join(free, 'moves')
      for (const clientId of ['stays', 'moves', 'other']) ids.push(await send(free, { clientId }))
      await Promise.all([complete(moved), complete(other)])
      expect((await cut.api.post('/commands', { clientId: 'stays', action: 'do' })).status).toBe(503)

      toPostgres.mend()
      toRedis.mend()
      // Every one of its sockets is of an older session, or of one that was ended.
      await Promise.all([stays.whenClosed(), moves.whenClosed(), works.whenClosed()])
      await untilRedis(cut, 'up')
      const back = await join(cut, 'stays')
      await complete(back)
      const worker = await join(cut, 'works')
      if (!acknowledged) await worker.report(ids[0] as string, { status: 'completed', attempt: 1 })
      await judge(ids, [...devices, other, moved, back, worker])
      // It may take logins before it has renewed its lease.
      await until(async () => Object.values(await owners()).every(Boolean), 'each has its owner')
      expect(await owners()).toEqual({ stays: true, moves: true, works: true, other: true })
    },
  )

  test('PostgreSQL away from both for longer than a lease: nobody takes the other for dead', async () => {
    toPostgres = await startNetwork(database)
    const settings = { SWEEP_INTERVAL_SECONDS: 0.2, NODE_LEASE_SECONDS: LEASE_SECONDS }
    nodes = await startPair({ ...settings, REDIS_URL: redis.url, DATABASE_URL: toPostgres.url }, database)
    const keysOf = await Promise.all(nodes.both.map((server, index) => register(server, `d${index}`)))
    const devices = await Promise.all(
      nodes.both.map((server, index) => enter(server, `d${index}`, keysOf[index] as string)),
    )
    const sessions = () => database.query('select id, session_epoch, session_node from clients order by id')
    const before = await sessions()
    const expired = 'select 1 from nodes where expires_at < clock_timestamp()'
    toPostgres.cut()
    await until(async () => (await database.query(expired)).length === 2, 'both leases are over')
    toPostgres.mend()
    await until(async () => (await database.query(expired)).length === 0, 'both have renewed')
    for (const [index, device] of devices.entries()) {
      const id = await send(nodes.both[1 - index] as TestServer, { clientId: `d${index}` })
      expect(await complete(device)).toBe(id)
    }
    expect(await sessions()).toEqual(before)
  })
})
