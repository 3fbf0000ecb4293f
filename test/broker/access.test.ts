import { generate } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connectDevice, ROOT } from '../support/device.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import {
  CONNECT,
  command,
  commandsOf,
  enter,
  logged,
  openSocket,
  own,
  register,
  returnCodeOf,
  technician,
  untilStatus,
} from './support/scene.ts'

let server: TestServer
let key: string

beforeAll(async () => {
  server = await startServer()
  key = await register(server, 'c1', { zones: ['A'] })
  await register(server, 'c2', { zones: ['B'] })
})
afterAll(() => server.stop())

describe('a CONNECT', () => {
  test('with a wrong key is answered 4, with one log line that names the cause', async () => {
    const refused = await connectDevice(server, { clientId: 'c1', password: `sbk_${'x'.repeat(43)}` })
    expect(refused.returnCode).toBe(4)
    await refused.whenClosed()
    expect(
      logged(server, 'connection refused', { client: 'c1', code: 4, reason: 'bad key for client c1' }),
    ).toHaveLength(1)
  })

  test('of nobody, of an unknown client, and with half of the credentials is answered 4', async () => {
    expect(await returnCodeOf(server, { clientId: 'c1' })).toBe(4)
    expect(await returnCodeOf(server, { clientId: 'c1', username: 'c1' })).toBe(4)
    expect(await returnCodeOf(server, { clientId: 'nobody', username: 'nobody', password: Buffer.from(key) })).toBe(4)
  })

  test("with another client's id, or any id that is not its own, is answered 5", async () => {
    for (const clientId of ['c2', 'c1-2', 'c1~', 'c10', 'C1', 'unregistered']) {
      expect(await returnCodeOf(server, { clientId, username: 'c1', password: Buffer.from(key) }), clientId).toBe(5)
    }
  })

  test('of a disabled client is answered 5, its live connection ends, and it may come back once it is enabled', async () => {
    const password = await register(server, 'disabled-1')
    const device = await enter(server, 'disabled-1', password)
    await server.api.post('/clients/disabled-1/disable')
    await device.whenClosed()
    expect((await connectDevice(server, { clientId: 'disabled-1', password })).returnCode).toBe(5)
    await server.api.post('/clients/disabled-1/enable')
    await (await enter(server, 'disabled-1', password)).end()
  })

  test('of MQTT 5 is answered 1 and the log says what to choose', async () => {
    const code = await returnCodeOf(server, {
      clientId: 'c1',
      username: 'c1',
      password: Buffer.from(key),
      protocolVersion: 5,
    })
    expect(code).toBe(1)
    expect(logged(server, 'connection refused', { code: 1, reason: 'it speaks MQTT 5; choose 3.1.1' })).toHaveLength(1)
  })

  test('with an empty client id is answered 2 without clean session, and taken as a new name with it', async () => {
    const login = { clientId: '', username: 'admin', password: Buffer.from(ADMIN_TOKEN) }
    // mqtt-packet writes no CONNECT with an empty id and clean=false: byte 9 holds the flags, 0x02 is clean session.
    const bytes = generate({ ...CONNECT, ...login })
    bytes[9] = (bytes[9] as number) & ~0x02
    const raw = await openSocket(server)
    raw.socket.write(bytes)
    expect(await until(() => raw.packets[0], 'CONNACK')).toMatchObject({ cmd: 'connack', returnCode: 2 })
    raw.socket.destroy()
    expect(await returnCodeOf(server, login)).toBe(0)
  })

  test('of a principal with the id of a registered client is answered 5, with a wrong name or token 4', async () => {
    const password = Buffer.from(ADMIN_TOKEN)
    expect(await returnCodeOf(server, { clientId: 'c1', username: 'admin', password })).toBe(5)
    expect(await returnCodeOf(server, { clientId: 't', username: 'root', password })).toBe(4)
    expect(
      await returnCodeOf(server, { clientId: 't', username: 'admin', password: Buffer.from(`${ADMIN_TOKEN}x`) }),
    ).toBe(4)
  })

  test('with U+0000 in a name is not answered at all [MQTT-1.5.3-2], and the log says why', async () => {
    const password = Buffer.from(key)
    expect(await returnCodeOf(server, { clientId: 'c1', username: 'c1\u0000', password })).toBe(-1)
    const [line] = logged(server, 'connection turned away')
    expect(line?.reason).toContain('U+0000')
  })
})

describe('a will', () => {
  test('on the own status is accepted and ignored', async () => {
    const watcher = await technician(server, 'will-watcher', own('will-1', 'status'))
    const password = await register(server, 'will-1')
    const device = await connectDevice(server, {
      clientId: 'will-1',
      password,
      will: { topic: own('will-1', 'status'), payload: Buffer.from('{"state":"dead"}'), qos: 1, retain: true },
    })
    expect(device.returnCode).toBe(0)
    device.drop()
    const states = () => watcher.received().map(({ payload }) => payload.state)
    await until(() => states().length >= 3, 'offline after the drop')
    // What comes after the drop comes after a will would have come.
    await (await enter(server, 'will-1', password)).end()
    await until(() => states().length >= 5, 'the next session')
    expect(states()).toEqual(['offline', 'online', 'offline', 'online', 'offline'])
    await watcher.end()
  })

  test('on a foreign or a command topic is refused with 5', async () => {
    for (const topic of [own('c2', 'status'), commandsOf('c1'), 'elsewhere', own('c2', 'events/x')]) {
      const will = { topic, payload: Buffer.from('{}'), qos: 0 as const, retain: false }
      expect((await connectDevice(server, { clientId: 'c1', password: key, will })).returnCode, topic).toBe(5)
    }
  })
})

describe('a technician', () => {
  test('subscribes to everything below the root and sees status, config, command, report and reply', async () => {
    const watcher = await technician(server, 'watch-all', `${ROOT}/#`)
    const device = await enter(server, 'watched', await register(server, 'watched'))
    const id = await command(server, 'watched', { payload: { n: 1 } })
    const { messageId } = await device.nextCommand()
    device.ack(messageId)
    await device.report(id, { status: 'completed', attempt: 1 })
    await device.publish(own('watched', 'events/scan'), 'no JSON')
    const seen = (topic: string) => watcher.received(own('watched', topic)).map(({ payload }) => payload)
    await until(() => seen('replies').length > 0, 'the reply')
    expect(seen('status').map(({ state }) => state)).toEqual(['offline', 'online'])
    expect(seen('config')).toEqual([{ zones: [], maxInFlight: 8 }])
    expect(seen('commands')).toMatchObject([{ type: 'command', id, payload: { n: 1 } }])
    expect(seen(`commands/${id}/status`)).toEqual([{ status: 'completed', attempt: 1 }])
    expect(seen('replies')).toMatchObject([{ type: 'error', code: 'INVALID_INPUT' }])
    expect(seen('events/scan')).toEqual([])
    await untilStatus(server, id, 'completed')
    await Promise.all([watcher.end(), device.end()])
  })

  test('is refused every filter that is not below the root', async () => {
    const watcher = await technician(server, 'watch-nothing')
    const filters = ['#', '+/#', '+/v1/#', '$SYS/#', `$share/g/${ROOT}/#`, 'signalbox/#', ROOT]
    expect(await watcher.subscribe(filters)).toEqual(filters.map(() => 128))
    for (const filter of filters) expect(logged(server, 'subscription refused', { filter })).toHaveLength(1)
    expect(await watcher.subscribe(`${ROOT}/#`, 2)).toEqual([1])
    await watcher.end()
  })

  test('publishes nothing: whatever the topic, the connection is closed and the log says why', async () => {
    for (const [index, topic] of [commandsOf('c1'), own('c1', 'status'), 'elsewhere'].entries()) {
      const watcher = await technician(server, `publisher-${index}`)
      await expect(watcher.publish(topic, {})).rejects.toThrow('closed')
      const [line] = await until(() => {
        const lines = logged(server, 'connection closed', { client: `publisher-${index}` })
        return lines.length > 0 ? lines : undefined
      }, 'log line')
      expect(line?.reason).toContain('a principal publishes nothing')
    }
  })
})

describe('a client', () => {
  test('is granted exactly the topics marked to it, at QoS 1 also when it asks for 2', async () => {
    const device = await connectDevice(server, { clientId: 'c1', password: key })
    const filters = [commandsOf('c1'), own('c1', 'config'), own('c1', 'replies'), `${ROOT}/broadcast/commands`]
    expect(await device.subscribe([...filters, `${ROOT}/zones/A/commands`])).toEqual([1, 1, 1, 1, 1])
    expect(await device.subscribe(filters, 2)).toEqual([1, 1, 1, 1])
    expect(await device.subscribe([own('c1', 'config'), own('c1', 'replies')], 0)).toEqual([0, 0])
    await device.end()
  })

  test('is refused any other filter with 128 and one log line each that names the cause', async () => {
    const device = await connectDevice(server, { clientId: 'c1', password: key })
    const exact = 'a client subscribes only to the exact topics marked to it'
    const refused: [filter: string, reason: string][] = [
      ['#', exact],
      ['$SYS/#', exact],
      [`${ROOT}/#`, exact],
      [own('c1', '#'), exact],
      [own('c1', '+'), exact],
      [own('c1', 'commands/#'), exact],
      [`$share/g/${commandsOf('c1')}`, exact],
      [own('c1', 'status'), exact],
      [own('c1', 'events/+'), exact],
      [own('c1', 'commands/+/status'), exact],
      [commandsOf('+'), "it is another client's"],
      [commandsOf('c2'), "it is another client's"],
      [own('c2', 'config'), "it is another client's"],
      [`${ROOT}/zones/B/commands`, 'the client is not in zone B'],
      [`${ROOT}/zones/+/commands`, 'the client is not in zone +'],
    ]
    const since = server.logs.length
    expect(await device.subscribe(refused.map(([filter]) => filter))).toEqual(refused.map(() => 128))
    const lines = server.logs
      .slice(since)
      .filter(({ msg, client }) => msg === 'subscription refused' && client === 'c1')
    expect(lines.map(({ filter, reason }) => [filter, reason])).toEqual(refused)
    await device.end()
  })

  test('is refused a commands topic asked for at QoS 0, and the log says so', async () => {
    const device = await connectDevice(server, { clientId: 'c1', password: key })
    const topics = [commandsOf('c1'), `${ROOT}/zones/A/commands`, `${ROOT}/broadcast/commands`]
    const since = server.logs.length
    expect(await device.subscribe(topics, 0)).toEqual([128, 128, 128])
    const lines = server.logs.slice(since).filter(({ msg }) => msg === 'subscription refused')
    expect(lines.map(({ filter }) => filter)).toEqual(topics)
    for (const { reason } of lines) expect(reason).toContain('a commands topic asked for at QoS 0')
    await device.end()
  })

  test('that publishes where it may not is disconnected, and the log says why', async () => {
    const forbidden: [topic: string, why: string, qos?: 0 | 1 | 2][] = [
      [commandsOf('c1'), 'only the server publishes to it'],
      [`${ROOT}/zones/A/commands`, 'only the server publishes to it'],
      [`${ROOT}/broadcast/commands`, 'only the server publishes to it', 0],
      [own('c1', 'config'), 'only the server publishes to it'],
      [own('c2', 'status'), "it is another client's"],
      [own('c2', 'events/scan'), "it is another client's", 0],
      ['elsewhere', 'it is no topic of Signalbox'],
      [own('c1', 'nothing'), 'it is no topic of Signalbox'],
      [own('c1', 'events/scan'), 'use QoS 1', 2],
      [own('c1', 'events/s\u0000'), 'a string with U+0000'],
      [own('c1', 'events/a b'), 'its event type is no id'],
    ]
    const watcher = await technician(server, 'forbidden-watcher', `${ROOT}/#`)
    for (const [topic, why, qos] of forbidden) {
      const since = server.logs.length
      const device = await connectDevice(server, { clientId: 'c1', password: key })
      void device.publish(topic, { id: 'forbidden', type: 'command' }, { qos: qos ?? 1 }).catch(() => undefined)
      await device.whenClosed()
      expect(
        device.packets.map(({ cmd }) => cmd),
        topic,
      ).toEqual(['connack'])
      const lines = () =>
        server.logs.slice(since).filter(({ msg, client }) => msg === 'connection closed' && client === 'c1')
      await until(() => lines().length > 0, 'log line')
      expect(lines(), topic).toHaveLength(1)
      expect(lines()[0]?.reason, topic).toContain(why)
    }
    expect(watcher.received().filter(({ payload }) => payload.id === 'forbidden')).toEqual([])
    await watcher.end()
  })
})
