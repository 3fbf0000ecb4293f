import { randomUUID } from 'node:crypto'
import { IncomingMessage, type RequestListener, type Server, type ServerOptions, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { senderOf } from '../control/access/sender.ts'
import { AppError, type ErrorCode } from '../schemas/errors.ts'
import type { Settings } from '../schemas/settings.ts'
import { endUnread } from './end-unread.ts'
import { ANSWER_HEADERS } from './headers.ts'
import { problemDetails } from './problem.ts'

/** What HTTP itself allows a caller: sizes, times and numbers, the same for all listeners. */
export interface Connections {
  options: ServerOptions
  /** Puts the limits in front of what answers the server's requests. */
  guard(server: Server, answer: RequestListener): void
  /** Its connection counts no longer as one of a stranger. */
  admitted(request: IncomingMessage): void
}

/** The requests of a connection that are not answered yet. */
interface Unanswered {
  count: number
  newest: { request: IncomingMessage; response: ServerResponse }
  /** Begin those behind the one that is being answered. */
  waiting: (() => void)[]
}

/** What Node's HTTP parser and its clock refuse; everything else is a malformed request. */
const REFUSALS: Record<string, [ErrorCode, string]> = {
  HPE_HEADER_OVERFLOW: ['HEADERS_TOO_LARGE', 'The request line and headers are larger than HTTP_MAX_HEADER_BYTES.'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: ['PAYLOAD_TOO_LARGE', 'The chunk extensions are too large.'],
  ERR_HTTP_REQUEST_TIMEOUT: ['REQUEST_TIMEOUT', 'The request did not arrive completely in time.'],
}

/** How late a time-out may be noticed. */
const LOOK_EVERY_MS = 500

/**
 * Node's parser goes through all that came in one piece, and would make a request of each eighteen bytes of it also when the
 * connection has ended meanwhile. After an upgrade it stops at once; nobody listens for one, and the connection is gone.
 */
class ServerRequest extends IncomingMessage {
  declare asked: boolean | null
  get upgrade(): boolean {
    return this.asked || this.socket.destroyed
  }
  set upgrade(asked: boolean | null) {
    this.asked = asked
  }
}

export function createConnections(settings: Settings): Connections {
  const unanswered = new WeakMap<Duplex, Unanswered>()
  /** Connections without a login, by address; and each one's address by its port. */
  const strangers = new Map<string, number>()
  const strangerAt = new Map<string, string>()

  function forget(key: string): void {
    const sender = strangerAt.get(key)
    if (sender === undefined) return
    strangerAt.delete(key)
    const left = (strangers.get(sender) ?? 1) - 1
    if (left === 0) strangers.delete(sender)
    else strangers.set(sender, left)
  }

  function meet(socket: Socket): void {
    const sender = senderOf(socket.remoteAddress ?? '')
    const known = strangers.get(sender) ?? 0
    if (known >= settings.HTTP_MAX_UNAUTHENTICATED_PER_ADDRESS) return void socket.destroy()
    const key = keyOf(socket)
    strangers.set(sender, known + 1)
    strangerAt.set(key, sender)
    socket.once('close', () => forget(key))
  }

  /** One request of a connection after the other, as their answers go out: for those that wait nothing is done yet. */
  function begin(request: IncomingMessage, response: ServerResponse, answer: RequestListener): void {
    const { socket } = request
    const newest = { request, response }
    const open = unanswered.get(socket)
    if (open && open.count >= settings.HTTP_MAX_PIPELINED) return void socket.destroy()
    const state = open ?? { count: 0, newest, waiting: [] }
    if (!open) unanswered.set(socket, state)
    state.count++
    state.newest = newest
    response.once('close', () => {
      if (--state.count === 0) unanswered.delete(socket)
      else if (!socket.destroyed) state.waiting.shift()?.()
    })
    if (state.count === 1) answer(request, response)
    else state.waiting.push(() => answer(request, response))
  }

  /** An answer that could be taken for that of an earlier request is not given: the connection ends without one. */
  function mayBeTold(socket: Duplex): boolean {
    const { count, newest } = unanswered.get(socket) ?? { count: 0 }
    if (count === 0) return true
    return count === 1 && newest !== undefined && !newest.request.complete && !newest.response.headersSent
  }

  function refuse(socket: Duplex, [code, message]: [ErrorCode, string]): void {
    if (!socket.writable || !mayBeTold(socket)) return void socket.destroy()
    socket.write(rawProblem(new AppError(code, message)))
    endUnread(socket)
  }

  const headersTimeout = Math.min(settings.HTTP_HEADERS_TIMEOUT_SECONDS, settings.HTTP_REQUEST_TIMEOUT_SECONDS)
  return {
    options: {
      headersTimeout: headersTimeout * 1000,
      requestTimeout: settings.HTTP_REQUEST_TIMEOUT_SECONDS * 1000,
      keepAliveTimeout: settings.HTTP_KEEP_ALIVE_SECONDS * 1000,
      maxHeaderSize: settings.HTTP_MAX_HEADER_BYTES,
      connectionsCheckingInterval: LOOK_EVERY_MS,
      // Node's own answer would be no problem document (./problem.ts).
      requireHostHeader: false,
      IncomingMessage: ServerRequest,
      shouldUpgradeCallback: ({ socket }) => socket.destroyed,
    },
    guard(server, answer) {
      const listener: RequestListener = (request, response) => begin(request, response, answer)
      server.maxConnections = settings.HTTP_MAX_CONNECTIONS
      server.maxRequestsPerSocket = settings.HTTP_MAX_REQUESTS_PER_CONNECTION
      // Their number is limited by their size; Node would leave out what is above it, and not say so.
      server.maxHeadersCount = 0
      // On one that is read something moves at least this often: an answer that was waited for, or a stream's heartbeat.
      const quiet = Math.max(settings.HTTP_WAIT_MAX_SECONDS, settings.HTTP_HEARTBEAT_SECONDS)
      server.timeout = (quiet + settings.HTTP_STALLED_SECONDS) * 1000
      server.on('connection', meet)
      server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
        if (error.code === 'ECONNRESET' || socket.writableEnded) return
        refuse(socket, REFUSALS[error.code ?? ''] ?? ['INVALID_INPUT', 'This is not HTTP/1.1 as RFC 9112 has it.'])
      })
      server.on('connect', (_request, socket) => refuse(socket, ['NOT_FOUND', 'There is no CONNECT.']))
      server.on('request', listener)
      // The body is asked for where it is read, once the caller is known (./body.ts); other expectations are ignored.
      server.on('checkContinue', listener)
      server.on('checkExpectation', listener)
    },
    admitted: ({ socket }) => forget(keyOf(socket)),
  }
}

/** The same for a TLS socket and the TCP socket below it. */
const keyOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`

function rawProblem(problem: AppError): string {
  const details = problemDetails(problem)
  const body = JSON.stringify(details)
  const headers = {
    ...ANSWER_HEADERS,
    'X-Request-Id': randomUUID(),
    'Content-Type': 'application/problem+json; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(body)),
    Connection: 'close',
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  return [`HTTP/1.1 ${details.status} ${details.title}`, ...lines, '', body].join('\r\n')
}
