import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { own } from '../broker/support/scene.ts'
import { CONNACK, connect, hex, openWire, PINGREQ, PINGRESP, packet, u16 } from '../mqtt-clauses/support/wire.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

const MAX_PAYLOAD = 20_000
const MAX_TOPIC = 200
const FRAME_SECONDS = 1
let server: TestServer
let login: Buffer

beforeAll(async () => {
  server = await startServer({
    MAX_PAYLOAD_BYTES: MAX_PAYLOAD,
    MQTT_MAX_TOPIC_BYTES: MAX_TOPIC,
    MQTT_MAX_TOPIC_LEVELS: 10,
    MQTT_CONNECT_TIMEOUT_SECONDS: FRAME_SECONDS,
    MQTT_FRAME_TIMEOUT_SECONDS: FRAME_SECONDS,
    MAX_HELD_REPORTS: 1000,
  })
  const { body } = await server.api.post('/clients', { id: 'sizes' })
  login = connect({ clientId: 'sizes', flags: 0xc2, rest: ['sizes', body.clientKey] })
})
afterAll(() => server.stop())

async function enter() {
  const wire = await openWire(server.mqttPort)
  wire.send(login)
  await wire.expect(CONNACK, 'CONNACK')
  return wire
}

const reasons = (message: string) => server.logs.filter(({ msg }) => msg === message).map(({ reason }) => reason)
const ID = u16(7)
const PUBACK = packet(0x40, ID)
const event = (payload: string, type = 'x') => packet(0x32, own('sizes', `events/${type}`), ID, Buffer.from(payload))
const eventOf = (bytes: number) => event(`{"id":"${'i'.repeat(60)}","x":"${'y'.repeat(bytes - 76)}"}`)

describe('a packet', () => {
  test('of CONNECT may have 4096 bytes, and not one more', async () => {
    const withWill = (bytes: number) => {
      const bare = connect({ clientId: 'big', flags: 0x06, rest: ['t', ''] })
      return connect({ clientId: 'big', flags: 0x06, rest: ['t', 'w'.repeat(bytes - bare.length - 1)] })
    }
    expect(withWill(4096).length).toBe(4096)
    const fits = await openWire(server.mqttPort)
    fits.send(withWill(4096))
    // Well-formed, and anonymous.
    expect((await fits.end()).toString('hex')).toBe('20020004')
    const larger = await openWire(server.mqttPort)
    larger.send(withWill(4097).subarray(0, 3))
    expect((await larger.end()).length).toBe(0)
    expect(reasons('connection turned away').at(-1)).toContain('4097 bytes')
  })

  test('has room for a payload of just MAX_PAYLOAD_BYTES, whatever its topic', async () => {
    const wire = await enter()
    expect(eventOf(MAX_PAYLOAD).length).toBeGreaterThan(MAX_PAYLOAD)
    wire.send(eventOf(MAX_PAYLOAD))
    await wire.expect(PUBACK)
    expect(reasons('message dropped')).toEqual([])
    // A little more is the client's to know; much more is not read.
    wire.send(eventOf(MAX_PAYLOAD + 1))
    await wire.expect(PUBACK)
    expect(reasons('message dropped')).toHaveLength(1)
    expect(server.logs.find(({ msg }) => msg === 'message dropped')?.code).toBe('PAYLOAD_TOO_LARGE')
    wire.send(eventOf(MAX_PAYLOAD + MAX_TOPIC))
    await wire.end()
    expect(reasons('connection closed').at(-1)).toContain('at most')
  })

  test('may come in pieces of any size', async () => {
    const wire = await enter()
    const bytes = Buffer.concat([
      PINGREQ,
      event('{"id":"a"}'),
      packet(0x82, ID, own('sizes', 'config'), 1, own('sizes', 'replies'), 0),
      event(`{"id":"b","long":"${'x'.repeat(300)}"}`),
      PINGREQ,
    ])
    for (const byte of bytes) {
      wire.send(Buffer.from([byte]))
      await new Promise((resolve) => setImmediate(resolve))
    }
    const answers = () => wire.received().toString('hex')
    const all = [PINGRESP, PUBACK, packet(0x90, ID, 1, 0)].map((answer) => answer.toString('hex'))
    await until(() => all.every((answer) => answers().includes(answer)), 'all answers')
    await until(() => answers().split('d000').length === 3, 'both PINGRESP')
    await until(() => answers().split(PUBACK.toString('hex')).length === 3, 'both PUBACK')
    wire.drop()
  })

  test('may be cut in two anywhere, among others', async () => {
    const bytes = Buffer.concat([PINGREQ, event('{"id":"c"}'), PINGREQ, event('{"id":"d"}')])
    const wire = await enter()
    for (let cut = 1; cut < bytes.length; cut++) {
      wire.send(bytes.subarray(0, cut))
      await new Promise((resolve) => setImmediate(resolve))
      wire.send(bytes.subarray(cut), PINGREQ)
    }
    const count = (answer: Buffer) => wire.received().toString('hex').split(answer.toString('hex')).length - 1
    await until(() => count(PINGRESP) === 3 * (bytes.length - 1), 'all PINGRESP')
    await until(() => count(PUBACK) === 2 * (bytes.length - 1), 'all PUBACK')
    wire.drop()
  })

  test('that is not complete in time ends the connection; one that is does not, nor does silence', async () => {
    const silent = await openWire(server.mqttPort)
    silent.send(connect({ clientId: 'silent', flags: 0xc2, rest: ['admin', ADMIN_TOKEN] }))
    await silent.expect(CONNACK)
    const half = await enter()
    const started = performance.now()
    half.send(event('{"id":"half"}').subarray(0, 20))
    const trickle = setInterval(() => half.send(Buffer.from('x')), 200)
    await half.end()
    clearInterval(trickle)
    const took = performance.now() - started
    expect(took).toBeGreaterThan(FRAME_SECONDS * 900)
    expect(took).toBeLessThan(FRAME_SECONDS * 1000 + 1500)
    expect(reasons('connection closed').at(-1)).toBe('a packet was not complete in time')
    expect(silent.closed()).toBe(false)
    silent.drop()
  })

  test('of CONNECT that is not complete in time ends the connection, and so does no CONNECT at all', async () => {
    const started = performance.now()
    const [silent, begun] = [await openWire(server.mqttPort), await openWire(server.mqttPort)]
    begun.send(login.subarray(0, 12))
    await Promise.all([silent.end(), begun.end()])
    expect(performance.now() - started).toBeGreaterThan(FRAME_SECONDS * 900)
    expect(reasons('connection turned away').slice(-2)).toEqual(['no CONNECT in time', 'no CONNECT in time'])
  })
})

describe('a topic', () => {
  const prefix = own('sizes', 'events/')
  const ofBytes = (bytes: number) => `${prefix}${'t'.repeat(bytes - prefix.length)}`

  test('may have MQTT_MAX_TOPIC_BYTES bytes, a filter too', async () => {
    const wire = await enter()
    wire.send(packet(0x82, ID, ofBytes(MAX_TOPIC), 1))
    await wire.expect(packet(0x90, ID, 0x80))
    wire.send(packet(0x82, ID, ofBytes(MAX_TOPIC + 1), 1))
    await wire.end()
    const publisher = await enter()
    publisher.send(packet(0x30, ofBytes(MAX_TOPIC + 1), Buffer.from('{}')))
    await publisher.end()
    expect(reasons('connection closed').at(-1)).toContain('more than 200 bytes')
  })

  test('may have MQTT_MAX_TOPIC_LEVELS levels', async () => {
    const wire = await enter()
    wire.send(packet(0x82, ID, 'a/b/c/d/e/f/g/h/i/j', 1))
    await wire.expect(packet(0x90, ID, 0x80))
    wire.send(packet(0x82, ID, 'a/b/c/d/e/f/g/h/i/j/k', 1))
    await wire.end()
    expect(reasons('connection closed').at(-1)).toContain('more than 10 levels')
  })
})

describe('over WebSocket', () => {
  async function open() {
    const socket = new WebSocket(server.mqttWebSocket, 'mqtt')
    let received = Buffer.alloc(0)
    socket.on('message', (data: Buffer) => {
      received = Buffer.concat([received, data])
    })
    socket.on('error', () => undefined)
    const closed = once(socket, 'close').then(([code]) => code as number)
    await once(socket, 'open')
    return { socket, received: () => received.toString('hex'), closed }
  }

  test('[MQTT-6.0.0-2] packets may be cut and joined as the client likes', async () => {
    const { socket, received } = await open()
    for (const byte of login.subarray(0, 20)) socket.send(Buffer.from([byte]))
    socket.send(Buffer.concat([login.subarray(20), PINGREQ, event('{"id":"ws"}').subarray(0, 5)]))
    socket.send(event('{"id":"ws"}').subarray(5))
    await until(() => received() === `20020000d000${PUBACK.toString('hex')}`, 'all answers')
    socket.send(eventOf(MAX_PAYLOAD))
    await until(() => received().endsWith(PUBACK.toString('hex').repeat(2)), 'PUBACK of a large one')
    socket.terminate()
  })

  test('[MQTT-6.0.0-1] a text message ends the connection', async () => {
    const { socket, received, closed } = await open()
    socket.send(login)
    await until(() => received() === '20020000', 'CONNACK')
    socket.send('text')
    await closed
  })

  test('a message larger than a CONNECT may be is refused before the login', async () => {
    const { socket, received, closed } = await open()
    socket.send(Buffer.alloc(4097, hex('10')))
    expect(await closed).toBe(1009)
    expect(received()).toBe('')
  })

  test('a request that is never complete ends, like a WebSocket that never says anything', async () => {
    const url = new URL(server.mqttWebSocket)
    const slow = await openWire(Number(url.port))
    slow.send(Buffer.from('GET /mqtt HTTP/1.1\r\nHost: x\r\n'))
    const { closed } = await open()
    await Promise.all([slow.end(), closed])
    expect(reasons('connection turned away').slice(-2)).toEqual(['no CONNECT in time', 'no CONNECT in time'])
  })
})

test('an administrator is held to the same limits', async () => {
  const wire = await openWire(server.mqttPort)
  wire.send(connect({ clientId: 'watch', flags: 0xc2, rest: ['admin', ADMIN_TOKEN] }))
  await wire.expect(CONNACK)
  wire.send(hex('30 FF FF FF 7F'))
  await wire.end()
})
