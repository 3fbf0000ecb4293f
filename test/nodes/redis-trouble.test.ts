import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { register, technician, untilStatus } from '../broker/support/scene.ts'
import type { Device } from '../support/device.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { complete, enter, type Pair, send, startPair, statusOf, untilRedis } from './support/pair.ts'
import { openSlowLine, type SlowLine } from './support/slow-line.ts'

describe.skipIf(!hasTool('redis-server', 'redis-server'))('Redis in trouble', { timeout: 60_000 }, () => {
  let redis: TestRedis
  let slow: SlowLine
  let nodes: Pair
  let near: Device
  let far: Device
  beforeAll(async () => {
    redis = await startRedis()
    slow = await openSlowLine(redis.port)
    nodes = await startPair({ REDIS_URL: slow.url, SWEEP_INTERVAL_SECONDS: 0.2 })
    near = await enter(nodes.a, 'near', await register(nodes.a, 'near'))
    far = await enter(nodes.b, 'far', await register(nodes.a, 'far'))
  })
  afterAll(async () => {
    await nodes.stop()
    await slow.stop()
    await redis.stop()
  })

  const untilAll = async (state: 'up' | 'down'): Promise<void> => {
    for (const node of nodes.both) await untilRedis(node, state)
  }

  /** A whole life of a command, its create timed: nobody on its way may wait for Redis. */
  async function work(device: Device, clientId: string): Promise<number> {
    const start = performance.now()
    const id = await send(nodes.a, { clientId })
    const tookMs = performance.now() - start
    expect(await complete(device)).toBe(id)
    await untilStatus(nodes.a, id, 'completed')
    return tookMs
  }

  /** What goes on while Redis is no help: everything, and what another node has to notice, later. */
  async function servesAll(): Promise<void> {
    const creates = [await work(near, 'near'), await work(near, 'near'), await work(far, 'far')]
    expect(Math.max(...creates), 'a create waits for Redis').toBeLessThan(900)
    await waitsAndCancels()
    await presenceConverges()
  }

  async function waitsAndCancels(): Promise<void> {
    const waiting = nodes.a.api.post('/commands?wait=20', { clientId: 'far', action: 'do' })
    const { messageId, payload } = await far.nextCommand()
    far.ack(messageId)
    await far.report(payload.id as string, { status: 'running', attempt: 1 })
    expect((await nodes.a.api.post(`/commands/${payload.id}/cancel`, {})).body).toMatchObject({ requested: 1 })
    // More than once is allowed.
    const isCancel = (): boolean =>
      far.received().some((m) => m.payload.type === 'cancel' && m.payload.id === payload.id)
    await until(isCancel, 'the cancel')
    await far.report(payload.id as string, { status: 'cancelled', attempt: 1 })
    expect((await waiting).body).toMatchObject({ status: 'cancelled' })
  }

  async function presenceConverges(): Promise<void> {
    const id = `p-${crypto.randomUUID().slice(0, 8)}`
    const password = await register(nodes.b, id)
    const watcher = await technician(nodes.a, `watch-${id}`, statusOf(id))
    const device = await enter(nodes.b, id, password)
    await until(() => watcher.received().at(-1)?.payload.state === 'online', 'online there')
    await device.publish(statusOf(id), { state: 'online', version: '9' })
    await until(() => watcher.received().at(-1)?.payload.version === '9', 'its own status there')
    await nodes.a.api.send('DELETE', `/clients/${id}`)
    await device.whenClosed()
    await watcher.end()
    const newcomer = await technician(nodes.b, `late-${id}`, statusOf(id))
    await newcomer.end()
    expect(newcomer.received(statusOf(id)).map(({ payload }) => payload)).toEqual([])
  }

  test('it is up', async () => {
    await untilAll('up')
    await servesAll()
  })

  test('it is down, and comes back empty', async () => {
    await redis.kill()
    await untilAll('down')
    expect((await fetch(`${nodes.a.http}/health`)).status).toBe(200)
    await servesAll()
    await redis.restart()
    await untilAll('up')
    await servesAll()
  })

  test('it is frozen, and thaws', async () => {
    redis.freeze()
    // From the first moment on, before anybody has noticed.
    await servesAll()
    await untilAll('down')
    await servesAll()
    redis.thaw()
    await untilAll('up')
    await servesAll()
  })

  test('it is slow, and slower than is allowed', async () => {
    slow.delay(200)
    await servesAll()
    slow.delay(3000)
    await untilAll('down')
    await servesAll()
    slow.delay(0)
    await untilAll('up')
    await servesAll()
  })

  test('nodes that find no Redis start all the same, and find it later', async () => {
    await redis.kill()
    const third = await startPair({ REDIS_URL: slow.url, SWEEP_INTERVAL_SECONDS: 0.2 })
    try {
      for (const node of third.both) await untilRedis(node, 'down')
      const device = await enter(third.b, 'd', await register(third.a, 'd'))
      const id = await send(third.a, { clientId: 'd' })
      expect(await complete(device)).toBe(id)
      await redis.restart()
      for (const node of third.both) await untilRedis(node, 'up')
      await device.end()
    } finally {
      await third.stop()
    }
  })
})

test('two nodes without any Redis notice what the other does by themselves', async () => {
  const nodes = await startPair({ SWEEP_INTERVAL_SECONDS: 0.1, NODE_LEASE_SECONDS: 1 })
  try {
    const password = await register(nodes.a, 'd')
    const device = await enter(nodes.b, 'd', password)
    const watcher = await technician(nodes.a, 'w', statusOf('d'))
    const waiting = nodes.a.api.post('/commands?wait=20', { clientId: 'd', action: 'do' })
    await complete(device)
    expect((await waiting).body.status).toBe('completed')
    await until(() => watcher.received().at(-1)?.payload.state === 'online', 'online there')
    const again = await enter(nodes.a, 'd', password)
    await device.whenClosed()
    await again.end()
    await watcher.end()
    expect(await (await fetch(`${nodes.a.http}/health`)).json()).not.toHaveProperty('checks.redis')
  } finally {
    await nodes.stop()
  }
})
