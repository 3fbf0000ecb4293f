import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connect, hex } from '../mqtt-clauses/support/wire.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { connectDevice, startDevice } from '../support/device.ts'
import { AS_DEPLOYED, residentMb, settledMb } from '../support/memory.ts'
import type { TestServer } from '../support/server.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'

const SOCKETS = 1000
const MAX_GROWTH_MB = 32
let database: TestDatabase
let server: ServerProcess

beforeAll(async () => {
  database = await createTestDatabase()
  server = await startServerProcess(database, { env: AS_DEPLOYED })
})
afterAll(async () => {
  await server.kill()
  await database.drop()
})

const CONNECT = connect({ clientId: 'x', flags: 0xc6, rest: ['t', 'w'.repeat(3900), 'u', 'p'] })
const UPGRADE = [
  'GET /mqtt HTTP/1.1',
  'Host: x',
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Protocol: mqtt',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
].join('\r\n')

/** Each says something, and then only what it is made to say: a byte now and then, or nothing. */
const KINDS: { port: 'mqttPort' | 'wsPort'; first?: Buffer; next?: Buffer; reads?: false }[] = [
  { port: 'mqttPort' },
  { port: 'mqttPort', first: CONNECT.subarray(0, 3800) },
  { port: 'mqttPort', first: CONNECT.subarray(0, 30), next: Buffer.from('w') },
  { port: 'mqttPort', first: Buffer.concat([hex('10 FD 1F'), CONNECT.subarray(3, 20)]), next: Buffer.alloc(500) },
  { port: 'mqttPort', first: Buffer.alloc(65_536, hex('10 FF FF FF 7F')) },
  { port: 'mqttPort', first: Buffer.concat([connect({ level: 9 }), Buffer.alloc(65_536)]) },
  { port: 'mqttPort', first: Buffer.concat([connect({ flags: 0xc2, rest: ['u', 'p'] }), Buffer.alloc(65_536)]) },
  { port: 'mqttPort', first: hex('30 FF FF FF 7F'), next: Buffer.alloc(65_536) },
  // Half-open: what it is answered stays with the server's kernel.
  { port: 'mqttPort', first: connect({ flags: 0xc2, rest: ['u', 'p'] }), reads: false },
  { port: 'wsPort', first: Buffer.from(`${UPGRADE}\r\n\r\n`), reads: false },
  { port: 'wsPort', first: Buffer.from(`${UPGRADE}\r\nX-Bomb: ${'y'.repeat(7000)}`) },
  {
    port: 'wsPort',
    first: Buffer.from(`${UPGRADE}\r\n\r\n`),
    next: Buffer.alloc(65_536, hex('82 FF 00 00 00 00 10 00 00 00')),
  },
]

async function attack(count: number): Promise<Socket[]> {
  const sockets: Socket[] = []
  for (let index = 0; index < count; index++) {
    const kind = KINDS[index % KINDS.length] as (typeof KINDS)[number]
    const socket = createConnection({ port: server[kind.port], host: '127.0.0.1', localAddress: '127.0.0.9' })
    socket.on('error', () => undefined)
    sockets.push(socket)
    if (kind.reads === false) socket.pause()
    if (index % 50 === 49) await once(socket, 'connect')
    if (kind.first) socket.write(kind.first)
  }
  return sockets
}

test(`${SOCKETS} hostile sockets take little memory, and those who mean well notice nothing`, async () => {
  // The code that the attack runs through is compiled before, and the heap is that of a server that has been at work.
  for (const socket of await attack(KINDS.length * 10)) socket.destroy()
  const device = await startDevice(server as unknown as TestServer, 'good')
  for (let count = 0; count < 500; count++) {
    const { status, body } = await server.api.post('/commands', {
      clientId: 'good',
      action: 'work',
      payload: 'x'.repeat(2000),
    })
    expect(status).toBe(201)
    device.ack((await device.nextCommand()).messageId)
    const { id } = body as { id: string }
    await device.report(id, { status: 'completed', attempt: 1 })
  }
  const before = await settledMb(server)
  const sockets = await attack(SOCKETS)
  let most = 0
  const opened = performance.now()
  await until(
    async () => {
      for (const [index, socket] of sockets.entries()) {
        const next = KINDS[index % KINDS.length]?.next
        if (next && !socket.destroyed) socket.write(next)
      }
      most = Math.max(most, residentMb(server.process))
      return performance.now() - opened > 4000
    },
    'four seconds of it',
    10_000,
  )
  const started = performance.now()
  await device.ping()
  const other = await connectDevice(server, { clientId: 'good', password: device.clientKey })
  expect(other.returnCode).toBe(0)
  expect(performance.now() - started).toBeLessThan(1000)
  console.log(`${SOCKETS} hostile sockets: ${before.toFixed(0)} MB before, at most ${most.toFixed(0)} MB with them`)
  expect(most - before).toBeLessThan(MAX_GROWTH_MB)
  for (const socket of sockets) socket.destroy()
  await other.ping()
}, 60_000)
