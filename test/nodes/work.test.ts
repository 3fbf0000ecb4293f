import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { commandsOf, register, technician, untilStatus } from '../broker/support/scene.ts'
import { type Device, ROOT } from '../support/device.ts'
import { openStream } from '../support/event-source.ts'
import { ADMIN_TOKEN } from '../support/http.ts'
import { startRedis, type TestRedis } from '../support/redis.ts'
import { startServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { complete, enter, type Pair, SLOW_SWEEP, send, startPair, statusOf } from './support/pair.ts'

/** The sweeper comes every 30 s here: what passes, passes by hints. */
describe.skipIf(!hasTool('redis-server', 'redis-server'))('two nodes with one Redis', () => {
  let redis: TestRedis
  let nodes: Pair
  beforeAll(async () => {
    redis = await startRedis()
    nodes = await startPair({ REDIS_URL: redis.url, ...SLOW_SWEEP })
  })
  afterAll(async () => {
    await nodes.stop()
    await redis.stop()
  })

  test('a command created on one reaches a device on the other at once, and ?wait on the first has its result', async () => {
    const device = await enter(nodes.b, 'far', await register(nodes.a, 'far'))
    const waiting = nodes.a.api.post('/commands?wait=20', { clientId: 'far', action: 'do' })
    await complete(device)
    const { body } = await waiting
    expect(body).toMatchObject({ status: 'completed' })
    expect((await nodes.b.api.get(`/commands/${body.id}`)).body.status).toBe('completed')
    await device.end()
  })

  test('the timeline and the event streams of either node show everything', async () => {
    const device = await enter(nodes.b, 'told', await register(nodes.a, 'told'))
    const streams = await Promise.all(
      nodes.both.map(({ http }) => openStream(`${http}/api/events?clientId=told`, ADMIN_TOKEN)),
    )
    const id = await send(nodes.a, { clientId: 'told' })
    await complete(device)
    for (const { messages, close } of streams) {
      await until(() => messages.some(({ event }) => event === 'execution.completed'), 'the end on the stream')
      expect(messages.filter(({ data }) => data.commandId === id).map(({ event }) => event)).toEqual(
        expect.arrayContaining(['execution.queued', 'execution.delivered', 'execution.completed']),
      )
      close()
    }
    await device.end()
  })

  test('a full window frees itself by reports, whichever node takes them', async () => {
    const password = await register(nodes.a, 'window', { maxInFlight: 1 })
    const device = await enter(nodes.b, 'window', password)
    const ids = [await send(nodes.a, { clientId: 'window' }), await send(nodes.b, { clientId: 'window' })]
    const { messageId, payload } = await device.nextCommand()
    device.ack(messageId)
    await untilStatus(nodes.a, ids[0] as string, 'delivered')
    // An HTTP report, taken by the node that does not have the session.
    const answer = await fetch(`${nodes.a.http}/api/commands/${payload.id}/status`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${password}`, 'content-type': 'application/json' },
      body: JSON.stringify({ status: 'completed', attempt: 1 }),
    })
    expect(answer.status).toBe(200)
    expect(await complete(device)).toBe(ids[1])
    await device.end()
  })

  test('a zone and a broadcast command are one publish on each node, and each device gets it once', async () => {
    const devices: Device[] = []
    for (const [index, server] of [nodes.a, nodes.b, nodes.a, nodes.b].entries()) {
      const id = `zone-${index}`
      devices.push(await enter(server, id, await register(nodes.a, id, { zones: ['Z'] }), { zones: ['Z'] }))
    }
    for (const target of [{ zone: 'Z' }, { broadcast: true }]) {
      const topic = `${ROOT}/${target.zone ? 'zones/Z' : 'broadcast'}/commands`
      const id = await send(nodes.a, target)
      for (const device of devices) {
        const received = await until(() => device.received(topic)[0], `${device.clientId} has it`)
        expect(received.payload).toMatchObject({ id, attempt: 1 })
        device.ack(received.messageId as number)
        await device.report(id, { status: 'completed', attempt: 1 })
      }
      await until(async () => {
        const { counts } = (await nodes.a.api.get(`/commands/${id}`)).body
        return counts.completed >= devices.length
      }, 'all completed')
      for (const device of devices) {
        expect(device.received(topic)).toHaveLength(1)
        expect(device.received(commandsOf(device.clientId))).toEqual([])
      }
    }
    for (const device of devices) await device.end()
  })

  test('a cancel given to one reaches what runs on the other', async () => {
    const device = await enter(nodes.b, 'cancelled', await register(nodes.a, 'cancelled'))
    const id = await send(nodes.a, { clientId: 'cancelled' })
    const { messageId } = await device.nextCommand()
    device.ack(messageId)
    await device.report(id, { status: 'running', attempt: 1 })
    expect((await nodes.a.api.post(`/commands/${id}/cancel`, {})).body).toMatchObject({ requested: 1 })
    expect((await device.nextCommand()).payload).toMatchObject({ type: 'cancel', id })
    await device.report(id, { status: 'cancelled', attempt: 1 })
    await untilStatus(nodes.a, id, 'cancelled')
    await device.end()
  })

  test('a technician sees the traffic of both, each message once, and what is retained of both', async () => {
    const device = await enter(nodes.b, 'seen', await register(nodes.a, 'seen', { zones: ['S'] }), { zones: ['S'] })
    await device.publish(statusOf('seen'), { state: 'online', version: '2', journalId: 'j' }, { retain: true })
    const watcher = await technician(nodes.a, 'watcher', `${ROOT}/#`)
    await until(
      () => watcher.received(statusOf('seen')).some(({ payload }) => payload.version === '2'),
      'the retained status',
    )
    const config = await until(
      () => watcher.received(`${ROOT}/clients/seen/config`).at(-1),
      'the retained configuration',
    )
    expect(config.payload).toMatchObject({ zones: ['S'] })
    // Copies begin once the other node has heard that somebody listens here.
    const heard = async (): Promise<boolean> => {
      await device.publish(`${ROOT}/clients/seen/events/tick`, { id: crypto.randomUUID() })
      return watcher.received(`${ROOT}/clients/seen/events/tick`).length > 0
    }
    await until(heard, 'copies')
    const id = await send(nodes.a, { clientId: 'seen' })
    await complete(device)
    const report = `${commandsOf('seen')}/${id}/status`
    await until(() => watcher.received(report).length > 0, 'the report')
    await device.publish(`${ROOT}/clients/seen/events/last`, { id: crypto.randomUUID() })
    await until(() => watcher.received(`${ROOT}/clients/seen/events/last`).length > 0, 'the last event')
    expect(watcher.received(commandsOf('seen'))).toHaveLength(1)
    expect(watcher.received(report)).toHaveLength(1)
    await watcher.end()
    await device.end()
  })

  test('presence shows on both, and what a client says of itself', async () => {
    const password = await register(nodes.a, 'shown')
    const watchers = await Promise.all(
      nodes.both.map((server, index) => technician(server, `presence-${index}`, statusOf('shown'))),
    )
    const device = await enter(nodes.b, 'shown', password)
    for (const watcher of watchers)
      await until(() => watcher.received().at(-1)?.payload.state === 'online', 'online everywhere')
    await device.end()
    for (const watcher of watchers) {
      await until(() => watcher.received().at(-1)?.payload.state === 'offline', 'offline everywhere')
      await watcher.end()
    }
  })

  test('a zone that a client joins or loses by one node is in force on the other', async () => {
    const device = await enter(nodes.b, 'mover', await register(nodes.a, 'mover'))
    await device.subscribe(`${ROOT}/clients/mover/config`)
    expect((await nodes.a.api.send('PUT', '/zones/M/clients/mover')).status).toBeLessThan(300)
    await until(
      () => device.received(`${ROOT}/clients/mover/config`).at(-1)?.payload.zones?.toString() === 'M',
      'the new config',
    )
    expect(await device.subscribe(`${ROOT}/zones/M/commands`)).toEqual([1])
    await nodes.a.api.send('DELETE', '/zones/M/clients/mover')
    await until(
      () => device.received(`${ROOT}/clients/mover/config`).at(-1)?.payload.zones?.toString() === '',
      'the zone is gone',
    )
    expect(await device.subscribe(`${ROOT}/zones/M/commands`)).toEqual([128])
    await device.end()
  })

  test('what is disabled, deleted or given another key by one node is disconnected from the other', async () => {
    const changes: Record<string, (id: string) => Promise<unknown>> = {
      disabled: (id) => nodes.a.api.post(`/clients/${id}/disable`, {}),
      deleted: (id) => nodes.a.api.send('DELETE', `/clients/${id}`),
      rotated: (id) => nodes.a.api.post(`/clients/${id}/rotate-key`, {}),
    }
    for (const [id, change] of Object.entries(changes)) {
      const device = await enter(nodes.b, id, await register(nodes.a, id))
      await change(id)
      await device.whenClosed()
    }
  })

  test('a token that one node revokes works on the other no more, and what was opened with it ends', async () => {
    const { body } = await nodes.a.api.post('/principals', { name: 'leaver', role: 'viewer' })
    const stream = await openStream(`${nodes.b.http}/api/events`, body.token)
    expect((await nodes.a.api.send('DELETE', `/principals/${body.principal.id}`)).status).toBe(204)
    await stream.ended
    const answer = await fetch(`${nodes.b.http}/api/clients`, { headers: { authorization: `Bearer ${body.token}` } })
    expect(answer.status).toBe(401)
  })

  test('an HTTP client may ping and report to either node', async () => {
    const password = await register(nodes.a, 'web')
    const stream = await openStream(`${nodes.b.http}/api/events/web`, password)
    const id = await send(nodes.a, { clientId: 'web' })
    await until(() => stream.messages.some(({ data }) => data.id === id), 'the command on the stream')
    const headers = { authorization: `Bearer ${password}`, 'content-type': 'application/json' }
    const ping = await fetch(`${nodes.a.http}/api/clients/web/ping`, {
      method: 'POST',
      headers,
      body: JSON.stringify({ version: '3' }),
    })
    expect(ping.status).toBe(204)
    expect((await nodes.b.api.get('/clients/web')).body).toMatchObject({
      presence: 'online',
      reported: { version: '3' },
    })
    const report = await fetch(`${nodes.a.http}/api/commands/${id}/result`, { method: 'POST', headers, body: '{}' })
    expect(report.status).toBe(200)
    await untilStatus(nodes.b, id, 'completed')
    stream.close()
  })

  test('a node that joins shows what there is: presence, configuration, and what a live session has said of itself', async () => {
    const device = await enter(nodes.b, 'early', await register(nodes.a, 'early', { zones: ['E'] }))
    const status = { state: 'online', version: '7', journalId: 'j' }
    await device.publish(statusOf('early'), status, { retain: true })
    const again = await register(nodes.a, 'came-back')
    const before = await enter(nodes.b, 'came-back', again)
    await before.publish(statusOf('came-back'), status)
    await before.end()
    const back = await enter(nodes.b, 'came-back', again)
    const third = await startServer({ REDIS_URL: redis.url, ...SLOW_SWEEP }, { database: nodes.database })
    try {
      const watcher = await technician(third, 'joined', `${ROOT}/clients/#`)
      const shown = (topic: string) => watcher.received(topic).at(-1)?.payload
      await until(() => shown(statusOf('early')) && shown(statusOf('came-back')), 'what is retained')
      expect(shown(statusOf('early'))).toEqual(status)
      expect(shown(`${ROOT}/clients/early/config`)).toEqual({ zones: ['E'], maxInFlight: 8 })
      // Of the session before this one.
      expect(shown(statusOf('came-back'))).toEqual({ state: 'online' })
      const id = await send(third, { clientId: 'early' })
      expect(await complete(device)).toBe(id)
      await watcher.end()
    } finally {
      await third.stop()
    }
    await device.end()
    await back.end()
  })

  test('explain on the node without the session says who has it', async () => {
    const device = await enter(nodes.b, 'held', await register(nodes.a, 'held'))
    await device.unsubscribe(commandsOf('held'))
    const id = await send(nodes.a, { clientId: 'held' })
    expect((await nodes.a.api.get(`/commands/${id}/explain`)).body.items[0]).toMatchObject({ code: 'held_by_node' })
    expect((await nodes.b.api.get(`/commands/${id}/explain`)).body.items[0]).toMatchObject({ code: 'not_subscribed' })
    await device.end()
  })
})
