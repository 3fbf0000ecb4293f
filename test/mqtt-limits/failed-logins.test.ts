import { once } from 'node:events'
import { createConnection } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connect } from '../mqtt-clauses/support/wire.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

const DELAY_SECONDS = 3
const WITHIN = 3
let server: TestServer
let key: string

beforeAll(async () => {
  server = await startServer({
    MQTT_LOGIN_FAILURES_PER_MINUTE: WITHIN,
    MQTT_FAILED_LOGIN_DELAY_SECONDS: DELAY_SECONDS,
    LOG_LINES_PER_MINUTE: 10,
  })
  const { body } = await server.api.post('/clients', { id: 'real' })
  key = body.clientKey
})
afterAll(() => server.stop())

/** Logs in from one of loopback's addresses; answers the CONNACK's code and how long it took. */
async function attempt(from: string, clientId: string, password: string, username = clientId) {
  const started = performance.now()
  const socket = createConnection({ port: server.mqttPort, host: '127.0.0.1', localAddress: from })
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  socket.write(connect({ clientId, flags: 0xc2, rest: [username, password] }))
  const [answer] = (await once(socket, 'data')) as [Buffer]
  socket.destroy()
  return { code: answer[3], ms: performance.now() - started }
}

const WRONG = `sbk_${'x'.repeat(43)}`
const LATE_MS = DELAY_SECONDS * 1000

test('too many failures of one address are answered late; a right key from there is not', async () => {
  const from = '127.0.1.1'
  for (let count = 0; count < WITHIN; count++) {
    const { code, ms } = await attempt(from, `nobody-${count}`, WRONG)
    expect(code).toBe(4)
    expect(ms).toBeLessThan(LATE_MS / 2)
  }
  const late = Promise.all([1, 2, 3, 4].map((count) => attempt(from, `nobody-${count}`, WRONG)))
  const { code, ms } = await attempt(from, 'real', key)
  expect(code).toBe(0)
  expect(ms).toBeLessThan(LATE_MS / 2)
  expect((await attempt(from, 'technician', ADMIN_TOKEN, 'admin')).code).toBe(0)
  for (const one of await late) {
    expect(one.code).toBe(4)
    expect(one.ms).toBeGreaterThan(LATE_MS * 0.9)
  }
})

test('too many failures under one name are answered late, wherever they come from; its right key is not', async () => {
  const results = []
  for (let count = 0; count < WITHIN + 2; count++) results.push(await attempt(`127.0.2.${count + 1}`, 'real', WRONG))
  expect(results.map(({ code }) => code)).toEqual(Array(WITHIN + 2).fill(4))
  expect(results.map(({ ms }) => ms > LATE_MS * 0.9)).toEqual([false, false, false, true, true])
  const { code, ms } = await attempt('127.0.2.99', 'real', key)
  expect(code).toBe(0)
  expect(ms).toBeLessThan(LATE_MS / 2)
})

test('another client is not delayed for it, when it fails either', async () => {
  const { ms } = await attempt('127.0.3.1', 'other', WRONG)
  expect(ms).toBeLessThan(LATE_MS / 2)
})

test('the log has a few lines about one address, and says how many were left out', async () => {
  const from = '127.0.4.1'
  const lines = () =>
    server.logs.filter(({ msg, address }) => msg === 'connection refused' && String(address).startsWith(`${from}:`))
  await Promise.all(Array.from({ length: 60 }, (_, count) => attempt(from, `noise-${count}`, WRONG)))
  expect(lines()).toHaveLength(10)
  // One more line every six seconds.
  await until(async () => {
    await attempt(from, 'noise', WRONG)
    return lines().length > 10
  }, 'the next line')
  expect(lines().at(-1)?.leftOut).toBeGreaterThanOrEqual(50)
})

test('sockets that wait for their refusal are not kept when they go on sending', async () => {
  const from = '127.0.5.1'
  for (let count = 0; count < WITHIN; count++) await attempt(from, 'x', WRONG)
  const socket = createConnection({ port: server.mqttPort, host: '127.0.0.1', localAddress: from })
  socket.on('error', () => undefined)
  await once(socket, 'connect')
  const started = performance.now()
  socket.write(connect({ clientId: 'x', flags: 0xc2, rest: ['x', WRONG] }))
  const flood = setInterval(() => socket.write(Buffer.alloc(4096)), 20)
  await once(socket, 'close')
  clearInterval(flood)
  expect(performance.now() - started).toBeLessThan(LATE_MS * 0.9)
})

test('who does not wait for the refusal takes no place among those whose answer is held back', async () => {
  const MAX_HELD = 3
  const small = await startServer({
    MQTT_LOGIN_FAILURES_PER_MINUTE: 1,
    MQTT_FAILED_LOGIN_DELAY_SECONDS: 0.3,
    MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS: MAX_HELD,
  })
  const open = async (clientId: string) => {
    const socket = createConnection({ port: small.mqttPort, host: '127.0.0.1' })
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    socket.write(connect({ clientId, flags: 0xc2, rest: [clientId, WRONG] }))
    return socket
  }
  // Whether it is gone before the server knows who it was is chance: of so many, more than a few are.
  for (let count = 0; count < 100; count++) {
    const socket = await open(`gone-${count}`)
    setImmediate(() => socket.resetAndDestroy())
    await once(socket, 'close')
  }
  const refused = await open('stays')
  const answer = await Promise.race([once(refused, 'data'), once(refused, 'close')])
  expect(answer).toEqual([Buffer.from([0x20, 2, 0, 4])])
  refused.destroy()
  await small.stop()
})
