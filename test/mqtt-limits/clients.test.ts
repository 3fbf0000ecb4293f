import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  command,
  commandsOf,
  enter,
  logged,
  own,
  register,
  statusOf,
  technician,
  untilStatus,
} from '../broker/support/scene.ts'
import { connectDevice, type Device, ROOT } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

const BURST = 30
const PER_SECOND = 100
const SUBSCRIPTIONS = 5
const UNACKNOWLEDGED = 3
let server: TestServer

beforeAll(async () => {
  server = await startServer({
    MQTT_PACKET_BURST: BURST,
    MQTT_PACKETS_PER_SECOND: PER_SECOND,
    MQTT_MAX_SUBSCRIPTIONS: SUBSCRIPTIONS,
    MQTT_MAX_UNACKNOWLEDGED: UNACKNOWLEDGED,
    MQTT_FRAME_TIMEOUT_SECONDS: 0.5,
  })
})
afterAll(() => server.stop())

const pongs = ({ packets }: Device) => packets.filter(({ cmd }) => cmd === 'pingresp').length
const ping = { cmd: 'pingreq' } as const

describe('packets per second', () => {
  test('above the limit a client is read more slowly: everything is answered, and the log says so once', async () => {
    const device = await enter(server, 'eager', await register(server, 'eager'))
    const many = 230
    const started = performance.now()
    for (let count = 0; count < many; count++) {
      device.send(ping)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await until(() => pongs(device) === many, 'every PINGRESP')
    const took = performance.now() - started
    expect(took).toBeGreaterThan(((many - BURST - 20) / PER_SECOND) * 1000)
    expect(took).toBeLessThan(((many - BURST) / PER_SECOND) * 1000 + 2000)
    expect(logged(server, 'packets come too fast: read more slowly', { client: 'eager' }).length).toBeGreaterThan(0)
    await device.publish(own('eager', 'events/x'), { id: 'after' })
    await device.end()
  })

  test('also when all of it came in one piece; another client notices nothing', async () => {
    const device = await enter(server, 'lump', await register(server, 'lump'))
    const other = await enter(server, 'calm', await register(server, 'calm'))
    const many = BURST + PER_SECOND
    device.write(Buffer.concat([...Array(many).fill(Buffer.from([0xc0, 0])), Buffer.from([0xc0])]))
    await until(() => pongs(device) > 0, 'the first PINGRESP')
    expect(pongs(device)).toBeLessThan(BURST + 20)
    const started = performance.now()
    await other.ping()
    expect(performance.now() - started).toBeLessThan(300)
    device.write(Buffer.from([0]))
    await until(() => pongs(device) === many + 1, 'every PINGRESP')
    expect(performance.now() - started).toBeGreaterThan(700)
    expect(device.closed).toBe(false)
    await Promise.all([device.end(), other.end()])
  })
})

describe('subscriptions of one client', () => {
  test('are granted up to the limit; those that were there can be asked for again, and removed ones make room', async () => {
    const watcher = await technician(server, 'greedy')
    const filter = (number: number) => `${ROOT}/clients/${number}/#`
    expect(await watcher.subscribe([1, 2, 3].map(filter))).toEqual([1, 1, 1])
    expect(await watcher.subscribe([4, 5, 6, 7].map(filter))).toEqual([1, 1, 128, 128])
    expect(await watcher.subscribe([6, 1].map(filter))).toEqual([128, 1])
    await watcher.unsubscribe(filter(2))
    expect(await watcher.subscribe([6, 7].map(filter))).toEqual([1, 128])
    expect(logged(server, 'subscription refused', { client: 'greedy', filter: filter(7) })[0]?.reason).toContain(
      'already',
    )
    await watcher.end()
  })

  test('asked for at once above the limit end the connection', async () => {
    const watcher = await technician(server, 'greedier')
    await expect(watcher.subscribe([1, 2, 3, 4, 5, 6].map((number) => `${ROOT}/${number}`))).rejects.toThrow('closed')
  })

  test('that were refused do not come with the next session', async () => {
    const password = await register(server, 'later', { zones: [] })
    const zone = `${ROOT}/zones/Z/commands`
    const first = await connectDevice(server, { clientId: 'later', password, clean: false })
    expect(await first.subscribe([zone, commandsOf('later')])).toEqual([128, 1])
    await first.end()
    await server.api.send('PUT', '/zones/Z/clients/later')
    const second = await connectDevice(server, { clientId: 'later', password, clean: false })
    expect(second.sessionPresent).toBe(true)
    const { body } = await server.api.post('/commands', { zone: 'Z', action: 'do' })
    await second.nextCommand()
    expect(second.received(zone)).toEqual([])
    expect(second.received(commandsOf('later')).map(({ payload }) => payload.id)).toEqual([body.id])
    await second.end()
  })
})

describe('messages without a PUBACK', () => {
  test('are not sent beyond the limit; what waits goes out as acknowledgements come', async () => {
    const device = await enter(server, 'slow', await register(server, 'slow', { maxInFlight: 8 }))
    const ids: string[] = []
    for (let count = 0; count < 6; count++) ids.push(await command(server, 'slow'))
    const taken = []
    for (let count = 0; count < UNACKNOWLEDGED; count++) taken.push(await device.nextCommand())
    await device.ping()
    expect(device.received(commandsOf('slow'))).toHaveLength(UNACKNOWLEDGED)
    expect(await statusOf(server, ids[5] as string)).toMatch(/pending|queued/)
    for (const { messageId } of taken) device.ack(messageId)
    for (let count = UNACKNOWLEDGED; count < ids.length; count++) {
      const { messageId } = await device.nextCommand()
      device.ack(messageId)
    }
    for (const id of ids) await untilStatus(server, id, 'delivered')
    expect(
      device
        .received(commandsOf('slow'))
        .map(({ payload }) => payload.id)
        .sort(),
    ).toEqual([...ids].sort())
    await device.end()
  })
})

describe('a technician', () => {
  test('with overlapping subscriptions sees each message once, and DUP is not passed on', async () => {
    const watcher = await technician(server, 'overlap')
    expect(await watcher.subscribe([`${ROOT}/clients/#`], 0)).toEqual([0])
    expect(await watcher.subscribe([`${ROOT}/clients/again/events/+`, `${ROOT}/#`])).toEqual([1, 1])
    const device = await enter(server, 'again', await register(server, 'again'))
    const topic = own('again', 'events/scan')
    device.send({
      cmd: 'publish',
      topic,
      payload: '{"id":"1"}',
      qos: 1,
      messageId: 9,
      dup: true,
      retain: false,
    })
    await device.publish(topic, { id: '2' })
    await until(() => watcher.received(topic).length >= 2, 'both')
    await watcher.ping()
    expect(
      watcher.received(topic).map(({ payload, dup, messageId }) => [payload.id, dup, messageId !== undefined]),
    ).toEqual([
      ['1', false, true],
      ['2', false, true],
    ])
    await Promise.all([watcher.end(), device.end()])
  })
})
