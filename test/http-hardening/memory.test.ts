import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { AS_DEPLOYED, residentMb, settledMb } from '../support/memory.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'
import { crlf, head, portOf } from './support/raw.ts'

const SOCKETS = 1000
const MAX_GROWTH_MB = 32
/**
 * What a wave leaves behind is garbage that V8 collects when its old space has doubled: the plateau is that of any load, and a leak
 * of a wave's memory would be above it.
 */
const MAX_PLATEAU_MB = 96
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

const LINE = 'POST /api/commands HTTP/1.1'
const stranger = (...headers: string[]): string => crlf(LINE, 'Host: x', ...headers, '', '')
const BLOCK = Buffer.alloc(65_536, 0x20)
const GZIP = gzipSync(Buffer.alloc(50_000_000))
const CHUNK = Buffer.from(`10000\r\n${BLOCK.toString()}\r\n`)

/** Each says something, and goes on as it is made to, as long as it is listened to. Only one has a login. */
const KINDS: { first: string | Buffer; next?: Buffer }[] = [
  { first: '' },
  { first: `GET / HTTP/1.1\r\nHost: x\r\nX-Big: ${'y'.repeat(15_000)}` },
  { first: 'GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ', next: Buffer.from('y') },
  { first: stranger('Content-Length: 1000000000'), next: BLOCK },
  { first: stranger('Transfer-Encoding: chunked'), next: CHUNK },
  { first: stranger('Content-Encoding: gzip', `Content-Length: ${GZIP.length}`), next: GZIP },
  { first: crlf('POST /api/session HTTP/1.1', 'Host: x', 'Content-Length: 4000', '', '{"token":"') },
  { first: head(LINE, 'Content-Encoding: gzip', `Content-Length: ${GZIP.length}`), next: GZIP },
  { first: stranger('Cookie: signalbox=sbs_x').repeat(200) },
  { first: stranger('Cookie: signalbox=sbs_x').repeat(5) },
  { first: 'GET / HTTP/1.1\r\n\r\n'.repeat(3600) },
]

async function attack(count: number): Promise<Socket[]> {
  const sockets: Socket[] = []
  for (let index = 0; index < count; index++) {
    const kind = KINDS[index % KINDS.length] as (typeof KINDS)[number]
    const socket = connect({ port: portOf(server), host: '127.0.0.1', localAddress: '127.0.0.9' })
    socket.on('error', () => undefined).resume()
    sockets.push(socket)
    if (index % 50 === 49) await once(socket, 'connect')
    if (kind.first) socket.write(kind.first)
  }
  return sockets
}

test(`${SOCKETS} hostile connections take little memory, also again and again, and those who mean well are answered`, async () => {
  // The code that the attack runs through is compiled before, and the heap is that of a server that has been at work.
  for (const socket of await attack(KINDS.length * 20)) socket.destroy()
  const callers = Array.from({ length: 20 }, (_, index) => `c${index}`)
  await Promise.all(callers.map(work))
  const before = await settledMb(server)
  const first = await highestOf(1, 2500)
  const later = await highestOf(5, 800)
  const [began, once, again] = [before, first, later].map((mb) => mb.toFixed(0))
  console.log(
    `${SOCKETS} hostile connections: ${began} MB before, at most ${once} MB with them, ${again} MB in five more waves`,
  )
  expect(first - before).toBeLessThan(MAX_GROWTH_MB)
  expect(later - before).toBeLessThan(MAX_PLATEAU_MB)
  expect((await server.api.get('/health')).status).toBe(200)
}, 60_000)

/** What a caller does on an ordinary day. */
async function work(clientId: string): Promise<void> {
  expect((await server.api.post('/clients', { id: clientId })).status).toBe(201)
  for (let count = 0; count < 25; count++) {
    const command = { clientId, action: 'work', payload: 'x'.repeat(2000) }
    expect((await server.api.post('/commands/preview', { clientId, action: 'work' })).status).toBe(200)
    expect((await server.api.post('/commands', command)).status).toBe(201)
  }
}

async function highestOf(waves: number, ms: number): Promise<number> {
  let mostMb = 0
  for (let count = 0; count < waves; count++) mostMb = Math.max(mostMb, await wave(ms))
  return mostMb
}

/** So long an attack, while somebody else is served; answers the most that it took. */
async function wave(ms: number): Promise<number> {
  const sockets = await attack(SOCKETS)
  let mostMb = 0
  const opened = performance.now()
  await until(
    async () => {
      for (const [index, socket] of sockets.entries()) {
        const next = KINDS[index % KINDS.length]?.next
        if (next && !socket.destroyed && socket.writableLength < 200_000) socket.write(next)
      }
      mostMb = Math.max(mostMb, residentMb(server.process))
      expect((await server.api.get('/clients/c1')).status).toBe(200)
      return performance.now() - opened > ms
    },
    'the end of a wave',
    20_000,
  )
  for (const socket of sockets) socket.destroy()
  return mostMb
}
