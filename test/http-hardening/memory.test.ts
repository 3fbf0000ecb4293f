import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { residentMb, settledMb } from '../support/memory.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'
import { crlf, head, portOf } from './support/raw.ts'

const SOCKETS = 1000
const MAX_GROWTH_MB = 32
let database: TestDatabase
let server: ServerProcess

beforeAll(async () => {
  database = await createTestDatabase()
  server = await startServerProcess(database)
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
  { first: stranger('Cookie: signalbox=sbs_x').repeat(15) },
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

test(`${SOCKETS} hostile connections again and again take no more memory each time, and those who mean well are answered`, async () => {
  // The code that the attack runs through is compiled before, and the heap is that of a server that has been at work.
  for (const socket of await attack(KINDS.length * 20)) socket.destroy()
  await server.api.post('/clients', { id: 'c1' })
  for (let count = 0; count < 1000; count++) {
    expect((await server.api.post('/commands/preview', { clientId: 'c1', action: 'a' })).status).toBe(200)
  }
  const before = await settledMb(server)
  // How high a wave comes depends on when garbage is collected: it takes some to reach the plateau, which is what has to hold.
  const early = await highestOf(8)
  const late = await highestOf(3)
  const [began, first, last] = [before, early, late].map((mb) => mb.toFixed(0))
  console.log(
    `${SOCKETS} hostile connections: ${began} MB before, at most ${first} MB in eight waves, ${last} MB in three more`,
  )
  expect(late - early).toBeLessThan(MAX_GROWTH_MB)
  expect((await server.api.get('/health')).status).toBe(200)
}, 180_000)

async function highestOf(waves: number): Promise<number> {
  let mostMb = 0
  for (let count = 0; count < waves; count++) mostMb = Math.max(mostMb, await wave())
  return mostMb
}

/** Two and a half seconds of the attack, while somebody else is served; answers the most that it took. */
async function wave(): Promise<number> {
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
      return performance.now() - opened > 2500
    },
    'the end of a wave',
    20_000,
  )
  for (const socket of sockets) socket.destroy()
  return mostMb
}
