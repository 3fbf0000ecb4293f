import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import {
  AUTHORIZED,
  codeOf,
  crlf,
  exchange,
  faultsOf,
  head,
  openSocket,
  parseAnswers,
  portOf,
  post,
} from './support/raw.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer({
    HTTP_HEADERS_TIMEOUT_SECONDS: 0.6,
    HTTP_REQUEST_TIMEOUT_SECONDS: 1.2,
    HTTP_KEEP_ALIVE_SECONDS: 1,
    HTTP_WAIT_MAX_SECONDS: 1,
    HTTP_STALLED_SECONDS: 1,
    HTTP_MAX_PIPELINED: 20,
    HTTP_MAX_REQUESTS_PER_CONNECTION: 30,
    HTTP_MAX_HEADER_BYTES: 2000,
    HTTP_MAX_BODY_BYTES: 5000,
    HTTP_MAX_CONNECTIONS: 60,
    HTTP_MAX_UNAUTHENTICATED_PER_ADDRESS: 25,
  })
  await server.api.post('/clients', { id: 'c1' })
})
afterAll(() => server.stop())

const GOOD = head('GET /api/clients HTTP/1.1')
const POST = head('POST /api/commands HTTP/1.1', 'Content-Length: 100')
/** Long enough for the time-out, its notice and the lingering; far from what a test may take. */
const SOON_MS = 4000

async function answersUntilClosed(socket: Socket) {
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
  })
  const began = performance.now()
  await once(socket, 'close')
  return { answers: parseAnswers(text), afterMs: performance.now() - began }
}

describe('who is slow (slowloris) is told so, and its connection ends', () => {
  test.each([
    ['nothing at all', ''],
    ['half a line', 'GET /api/cl'],
    ['half a header', 'GET / HTTP/1.1\r\nHost: x\r\nX-'],
    ['no end of the headers', crlf('GET / HTTP/1.1', 'Host: x', AUTHORIZED, '')],
    ['no body', POST],
    ['half a body', `${POST}{"clientId":`],
    ['half a chunk', `${head('POST /api/commands HTTP/1.1', 'Transfer-Encoding: chunked')}5\r\nab`],
    ['no last chunk', `${head('POST /api/commands HTTP/1.1', 'Transfer-Encoding: chunked')}2\r\nab\r\n`],
    ['half a login', crlf('POST /api/session HTTP/1.1', 'Host: x', 'Content-Length: 50', '', '{"token"')],
  ])('%s', async (_name, begun) => {
    const socket = await openSocket(server)
    if (begun) socket.write(begun)
    const { answers, afterMs } = await answersUntilClosed(socket)
    expect(afterMs).toBeLessThan(SOON_MS)
    expect(answers.map(({ status }) => status)).toEqual([408])
    for (const answer of answers) {
      expect(faultsOf(answer)).toEqual([])
      expect(codeOf(answer)).toBe('REQUEST_TIMEOUT')
    }
  })

  test('a byte now and then does not help', async () => {
    const socket = await openSocket(server)
    socket.write('GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ')
    const dripping = setInterval(() => socket.write('y'), 50)
    const { answers, afterMs } = await answersUntilClosed(socket)
    clearInterval(dripping)
    expect(afterMs).toBeLessThan(SOON_MS)
    expect(answers.map(({ status }) => status)).toEqual([408])
  })

  test('a stranger whose body drips was answered before, and does not stay', async () => {
    const socket = await openSocket(server)
    socket.write(crlf('POST /api/commands HTTP/1.1', 'Host: x', 'Content-Length: 4000', '', ''))
    const dripping = setInterval(() => socket.write('y'), 50)
    const { answers, afterMs } = await answersUntilClosed(socket)
    clearInterval(dripping)
    expect(afterMs).toBeLessThan(SOON_MS)
    expect(answers[0]?.status).toBe(401)
  })

  test('a connection without a further request ends', async () => {
    const socket = await openSocket(server)
    socket.write(GOOD)
    const { answers, afterMs } = await answersUntilClosed(socket)
    expect(afterMs).toBeLessThan(SOON_MS)
    expect(answers.map(({ status }) => status)).toEqual([200])
  })

  test('who waits for an outcome is not slow', async () => {
    const { id } = (await server.api.post('/commands', { clientId: 'c1', action: 'print' })).body
    expect((await server.api.get(`/commands/${id}?wait=1`)).status).toBe(200)
  })
})

/** Whether the kernel still has the server's end of this connection. */
const isOpen = ({ localPort }: Socket, at: TestServer): boolean =>
  readFileSync('/proc/net/tcp', 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .some(([, local, remote, state]) => local === tcp(portOf(at)) && remote === tcp(localPort ?? 0) && state === '01')
const tcp = (port: number): string => `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`

test('a reader that takes nothing of its answer is disconnected, and a stream on which nothing happens is not', async () => {
  const stalling = await startServer({ HTTP_STALLED_SECONDS: 2, HTTP_WAIT_MAX_SECONDS: 1, HTTP_HEARTBEAT_SECONDS: 1 })
  await stalling.api.post('/clients', { id: 'c1' })
  for (let count = 0; count < 60; count++) {
    await stalling.api.post('/commands', { clientId: 'c1', action: 'a', payload: 'x'.repeat(200_000) })
  }
  const stream = await openSocket(stalling)
  stream.resume().write(head('GET /api/events?types=alert.opened HTTP/1.1'))
  await once(stream, 'data')
  const stalled = await openSocket(stalling)
  stalled.pause().write(head('GET /api/commands?limit=200 HTTP/1.1'))
  expect(isOpen(stalled, stalling)).toBe(true)
  await until(() => !isOpen(stalled, stalling), 'it is disconnected', 25_000)
  expect(isOpen(stream, stalling)).toBe(true)
  stalled.destroy()
  stream.destroy()
  await stalling.stop()
}, 60_000)

describe('numbers', () => {
  test('more unanswered requests of a connection than HTTP_MAX_PIPELINED end it', async () => {
    const { answers, closed } = await exchange(server, [GOOD.repeat(500)], 500)
    expect(closed).toBe(true)
    expect(answers.length).toBeLessThanOrEqual(30)
    expect((await exchange(server, [GOOD.repeat(20)], 20)).answers).toHaveLength(20)
  })

  test('behind the answer to a stranger whose body is larger than HTTP_MAX_LOGIN_BODY_BYTES the connection ends, unread', async () => {
    const socket = await openSocket(server)
    let text = ''
    socket.setEncoding('latin1').on('data', (chunk) => {
      text += chunk
    })
    const closed = once(socket, 'close')
    socket.write(crlf('POST /api/commands HTTP/1.1', 'Host: x', 'Content-Length: 4500', '', ''))
    await once(socket, 'data')
    socket.write('x'.repeat(4500) + GOOD)
    await closed
    expect(parseAnswers(text).map(({ status }) => status)).toEqual([401])
  })

  test('the requests of a connection are answered one after the other: a later one finds what an earlier one made', async () => {
    for (let count = 0; count < 20; count++) {
      const pieces = post('/api/clients', `{"id":"piped-${count}"}`) + head(`GET /api/clients/piped-${count} HTTP/1.1`)
      const { answers } = await exchange(server, [pieces], 2)
      expect(answers.map(({ status }) => status)).toEqual([201, 200])
    }
  })

  test('a connection ends after HTTP_MAX_REQUESTS_PER_CONNECTION', async () => {
    const socket = await openSocket(server)
    let text = ''
    socket.on('data', (chunk) => {
      text += chunk
    })
    const closed = once(socket, 'close')
    for (let count = 1; count <= 30; count++) {
      socket.write(GOOD)
      await until(() => parseAnswers(text).length === count, `answer ${count}`)
    }
    await closed
    expect(parseAnswers(text).at(-1)?.headers.get('connection')).toBe('close')
  })

  test('garbage behind an unanswered request is not answered in its place', async () => {
    const { answers } = await exchange(server, [`${GOOD}\u0000garbage\r\n\r\n`], 2)
    expect(answers.map(({ status }) => status).filter((status) => status !== 200)).toEqual([])
  })

  test('HTTP_MAX_HEADER_BYTES and HTTP_MAX_BODY_BYTES', async () => {
    const [large] = (await exchange(server, [head('GET / HTTP/1.1', `X: ${'y'.repeat(2000)}`)])).answers
    expect(large && codeOf(large)).toBe('HEADERS_TOO_LARGE')
    expect((await server.api.post('/commands', { payload: 'x'.repeat(5000) })).body.code).toBe('PAYLOAD_TOO_LARGE')
  })

  const open = async (localAddress: string): Promise<Socket> => {
    const socket = connect({ port: portOf(server), host: '127.0.0.1', localAddress })
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    return socket
  }
  const alive = (sockets: Socket[]): Socket[] => sockets.filter((socket) => !socket.destroyed)

  test('of one address only so many connections without a login; a login makes room, and others notice nothing', async () => {
    const logged: Socket[] = []
    for (let count = 0; count < 25; count++) {
      const socket = await open('127.0.0.7')
      socket.resume().write(head('GET /api/events HTTP/1.1'))
      await once(socket, 'data')
      logged.push(socket)
    }
    const strangers = await Promise.all(Array.from({ length: 30 }, () => open('127.0.0.7')))
    for (const socket of strangers) socket.resume()
    await until(() => alive(strangers).length <= 25, 'those beyond the limit are closed')
    expect(alive(logged)).toHaveLength(25)
    expect((await server.api.get('/clients')).status).toBe(200)
    for (const socket of [...logged, ...strangers]) socket.destroy()
    // Room again: a closed connection is forgotten.
    await until(async () => {
      const again = await open('127.0.0.7')
      again.write(GOOD)
      const answered = await Promise.race([
        once(again, 'data').then(() => true),
        once(again, 'close').then(() => false),
      ])
      again.destroy()
      return answered
    }, 'room again')
  })

  test('more than HTTP_MAX_CONNECTIONS are closed, and there is room again afterwards', async () => {
    const many: Socket[] = []
    for (let from = 20; from < 24; from++) {
      for (let count = 0; count < 22; count++) many.push((await open(`127.0.0.${from}`)).resume())
    }
    await until(() => alive(many).length <= 60, 'those beyond the limit are closed')
    for (const socket of many) socket.destroy()
    await until(async () => (await exchange(server, [GOOD])).answers[0]?.status === 200, 'room again')
  })
})
