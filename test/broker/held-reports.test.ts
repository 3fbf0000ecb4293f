import { generate } from 'mqtt-packet'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { Settings } from '../../schemas/settings.ts'
import type { Device } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { command, enter, own, register, untilStatus } from './support/scene.ts'

const LIMIT = Settings.parse({}).MAX_HELD_REPORTS
let server: TestServer
let holder: pg.Client
let device: Device
let id: string
let count = 0
let received = 0

beforeAll(async () => {
  server = await startServer(
    { MQTT_FRAME_TIMEOUT_SECONDS: 1 },
    { passed: (point) => void (point === 'report-received' && received++) },
  )
  holder = new pg.Client({ connectionString: server.database_.url })
  await holder.connect()
})
afterAll(async () => {
  await holder.end()
  await server.stop()
})

/** A delivered command whose row is locked: no report about it can be committed. */
beforeEach(async () => {
  const clientId = `held-${++count}`
  device = await enter(server, clientId, await register(server, clientId))
  id = await command(server, clientId)
  device.ack((await device.nextCommand()).messageId)
  await untilStatus(server, id, 'delivered')
  received = 0
  await holder.query('begin')
  await holder.query('select 1 from executions where command_id = $1 for update', [id])
})
afterEach(async () => {
  await holder.query('rollback')
  await device.end()
})

const report = (number: number) =>
  publish(number, `commands/${id}/status`, { status: 'running', attempt: 1, progress: { done: number } })
const event = (number: number) => publish(number, 'events/x', { id: `e${number}` })
const publish = (number: number, topic: string, payload: Record<string, unknown>) =>
  generate({
    cmd: 'publish',
    topic: own(device.clientId, topic),
    payload: JSON.stringify(payload),
    messageId: 1000 + number,
    qos: 1,
    retain: false,
    dup: false,
  })
const pubacks = () =>
  device.packets.flatMap((packet) => (packet.cmd === 'puback' ? [(packet.messageId ?? 0) - 1000] : []))
const numbers = (to: number) => Array.from({ length: to }, (_, index) => index + 1)

describe('while PostgreSQL does not commit', () => {
  test('a device with up to MAX_HELD_REPORTS reports in the air gets its pings answered', async () => {
    for (const number of numbers(LIMIT)) {
      device.write(report(number))
      await until(() => received === number, `report ${number} is taken in`)
      await device.ping()
    }
    expect(pubacks()).toEqual([])
    await holder.query('commit')
    await until(() => pubacks().length === LIMIT, 'all PUBACKs')
    expect(pubacks()).toEqual(numbers(LIMIT))
  })

  test('also when it sent them all at once', async () => {
    device.write(Buffer.concat(numbers(LIMIT).map(report)))
    await until(() => received === LIMIT, 'all are taken in')
    await device.ping()
    expect(pubacks()).toEqual([])
    await holder.query('commit')
    await until(() => pubacks().length === LIMIT, 'all PUBACKs')
    expect(pubacks()).toEqual(numbers(LIMIT))
  })

  test('a burst far above it in one write, of which a part is committed first, leaves the connection usable', async () => {
    const many = LIMIT * 10
    // Events are committed while the reports wait.
    device.write(Buffer.concat(numbers(many).map((number) => (number <= many / 2 ? event(number) : report(number)))))
    await until(() => pubacks().length === many / 2, "the events' PUBACKs")
    await holder.query('commit')
    await until(() => pubacks().length === many, 'all PUBACKs')
    expect(pubacks()).toEqual(numbers(many))
    await device.ping()
    await device.report(id, { status: 'completed', attempt: 1 })
  })

  test('above that what it has begun to say is not late: nobody reads it', async () => {
    device.write(Buffer.concat([...numbers(LIMIT + 1).map(report), Buffer.from([0xc0])]))
    await until(() => received === LIMIT + 1, 'all are taken in')
    const clock = await enter(server, `clock-${count}`, await register(server, `clock-${count}`))
    clock.write(Buffer.from([0xc0]))
    await clock.whenClosed()
    expect(device.closed).toBe(false)
    device.write(Buffer.from([0]))
    await holder.query('commit')
    await until(() => device.packets.some(({ cmd }) => cmd === 'pingresp'), 'the PINGRESP')
    expect(pubacks()).toEqual(numbers(LIMIT + 1))
  })

  test('above that it is paused, another client notices nothing, and after the commit everything is answered in order', async () => {
    const many = LIMIT * 10
    for (const number of numbers(LIMIT + 1)) {
      device.write(report(number))
      await until(() => received === number, `report ${number} is taken in`)
    }
    for (const number of numbers(many).slice(LIMIT + 1)) device.write(report(number))
    device.send({ cmd: 'pingreq' })
    const other = await enter(server, `other-${count}`, await register(server, `other-${count}`))
    for (const number of numbers(5)) await other.publish(own(other.clientId, 'events/x'), { id: `e${number}` })
    await other.end()
    expect(received).toBe(LIMIT + 1)
    expect(device.packets.some(({ cmd }) => cmd === 'pingresp')).toBe(false)
    await holder.query('commit')
    await until(() => pubacks().length === many, 'all PUBACKs')
    expect(pubacks()).toEqual(numbers(many))
    await until(() => device.packets.some(({ cmd }) => cmd === 'pingresp'), 'the PINGRESP')
    const [row] = await server.sql('select progress from executions where command_id = $1', [id])
    expect(row).toEqual({ progress: { done: many } })
  })
})
