import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { register, technician } from '../broker/support/scene.ts'
import { connectDevice, type Device } from '../support/device.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { complete, enter, type Pair, SLOW_SWEEP, send, startPair, statusOf } from './support/pair.ts'

/** Of connections to both nodes at once; TAKEOVER_ROUNDS=1000 takes some minutes on two busy cores. */
const ROUNDS = Number(process.env.TAKEOVER_ROUNDS ?? 200)

describe.skipIf(!hasTool('redis-server', 'redis-server'))('one client id on two nodes', () => {
  let redis: TestRedis
  let nodes: Pair
  beforeAll(async () => {
    redis = await startRedis()
    nodes = await startPair({ REDIS_URL: redis.url, ...SLOW_SWEEP, LOG_LEVEL: 'warn' })
  })
  afterAll(async () => {
    await nodes.stop()
    await redis.stop()
  })

  const epochOf = async (id: string): Promise<number | undefined> =>
    (await nodes.a.sql<{ session_epoch: number }>('select session_epoch from clients where id = $1', [id]))[0]
      ?.session_epoch

  test('one after the other: the newest lives, the older one is closed, and work goes to the newest', async () => {
    const password = await register(nodes.a, 'mover')
    let last: Device | undefined
    for (let round = 0; round < 10; round++) {
      const device = await enter(nodes.both[round % 2] as Pair['a'], 'mover', password)
      await last?.whenClosed()
      last = device
    }
    const id = await send(nodes.a, { clientId: 'mover' })
    expect(await complete(last as Device)).toBe(id)
    await last?.end()
    for (const { api } of nodes.both)
      await until(async () => (await api.get('/clients/mover')).body.presence === 'offline', 'offline')
  })

  test('an HTTP stream takes over from MQTT on the other node, and the other way round', async () => {
    const password = await register(nodes.a, 'both')
    const device = await enter(nodes.a, 'both', password)
    const stream = await fetch(`${nodes.b.http}/api/events/both`, { headers: { authorization: `Bearer ${password}` } })
    await device.whenClosed()
    const again = await enter(nodes.a, 'both', password)
    const ended = await stream.text()
    expect(ended).not.toContain('event: command')
    await again.end()
  })

  test(`at once, ${ROUNDS} rounds: one session lives each time, and both nodes show it`, {
    timeout: 600_000,
  }, async () => {
    const password = await register(nodes.a, 'twin')
    const watchers = await Promise.all(
      nodes.both.map((server, index) => technician(server, `watcher-${index}`, statusOf('twin'))),
    )
    let winners = [0, 0]
    for (let round = 0; round < ROUNDS; round++) {
      const devices = await Promise.all(
        nodes.both.map((server) => connectDevice(server, { clientId: 'twin', password })),
      )
      await until(() => devices.filter(({ closed }) => !closed).length === 1, `round ${round}: one lives`)
      const survivor = devices.findIndex(({ closed }) => !closed)
      winners = winners.map((count, index) => count + Number(index === survivor))
      await devices[survivor]?.ping()
      expect(await epochOf('twin')).not.toBeNull()
      if (round % 10 === 0)
        for (const { api } of nodes.both) expect((await api.get('/clients/twin')).body.presence).toBe('online')
      for (const watcher of watchers)
        await until(() => watcher.received().at(-1)?.payload.state === 'online', `round ${round}: shown online`)
      await devices[survivor]?.end()
      for (const watcher of watchers)
        await until(() => watcher.received().at(-1)?.payload.state === 'offline', `round ${round}: shown offline`)
      expect(await epochOf('twin')).toBeNull()
    }
    console.log(`${ROUNDS} rounds: node a won ${winners[0]}, node b ${winners[1]}`)
    for (const watcher of watchers) await watcher.end()
  })
})
