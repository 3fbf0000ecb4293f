import { createServer as createHttpServer, type RequestListener } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { createWebSocketStream, type WebSocket, WebSocketServer } from 'ws'
import { bind, type Place } from '../control/bind.ts'
import type { Certificate } from '../control/certificate.ts'
import type { Gate } from './gate/gate.ts'
import type { PacketLimits } from './gate/packets.ts'
import { release } from './gate/release.ts'

export interface Listener {
  port: number
  /** Takes no more connections; resolves when the last one is gone. */
  close(): Promise<void>
  /** Ends the connections that are left, whatever state they are in. */
  terminate(): void
}

/** With a certificate it speaks TLS. */
export interface ListenerPlace extends Place {
  certificate?: Certificate | undefined
}

/** MQTT over TCP or TLS. Throws an error that names the setting if the port is taken. */
export function listenTcp(gate: Gate, place: ListenerPlace): Promise<Listener> {
  const { certificate } = place
  if (!certificate) return listen(gate, place, (socket) => gate.open(socket, socket))
  const below = createBelow()
  const server = createTlsServer(certificate.options, (socket) => gate.open(socket, below.of(socket)))
  certificate.renews(server)
  return listen(gate, place, (socket) => {
    below.keep(socket)
    server.emit('connection', socket)
  })
}

const upgradeRequired: RequestListener = (_request, response) => {
  response
    .writeHead(426, { 'content-type': 'text/plain', connection: 'close' })
    .end('MQTT over WebSocket: connect to /mqtt\n')
}

/** Headers of a request for a WebSocket; a browser may send along the cookies of the console. */
const MAX_HEADER_BYTES = 8192

/** MQTT over WebSocket, path /mqtt, subprotocol `mqtt` [MQTT-6.0.0-3]. */
export function listenWebSocket(gate: Gate, place: ListenerPlace, limits: PacketLimits): Promise<Listener> {
  const { certificate } = place
  const options = { maxHeaderSize: MAX_HEADER_BYTES, ...certificate?.options }
  const server = certificate ? createHttpsServer(options, upgradeRequired) : createHttpServer(options, upgradeRequired)
  if (certificate) certificate.renews(server as ReturnType<typeof createHttpsServer>)
  const below = createBelow()
  const sockets = new WebSocketServer({
    server,
    path: '/mqtt',
    handleProtocols: (offered) => (offered.has('mqtt') ? 'mqtt' : false),
    maxPayload: limits.connectBytes,
  })
  sockets.on('connection', (socket, request) => {
    if (socket.protocol !== 'mqtt') return socket.close(1002, 'subprotocol mqtt is required')
    const arrived = keepArrived(request.socket)
    socket.on('error', () => {
      // ws has said why; to wait for the client's answer would be to read on.
      arrived.release()
      request.socket.destroySoon()
    })
    const stream = createWebSocketStream(socket)
    socket.prependListener('message', (_data, isBinary) => {
      if (!isBinary) stream.destroy(new Error('a WebSocket message that is not binary [MQTT-6.0.0-1]'))
    })
    gate.open(stream, below.of(request.socket), () => {
      arrived.forget()
      takeMessagesOf(socket, 2 * limits.packetBytes)
    })
  })
  return listen(gate, place, (socket) => {
    below.keep(socket)
    server.emit('connection', socket)
    if (!certificate) socket.resume()
  })
}

/** The TCP socket that a TLS socket is on top of, or the socket itself: both have the same other end. */
function createBelow(): { keep(socket: Socket): void; of(upper: Socket): Socket } {
  const sockets = new Map<string, Socket>()
  const nameOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`
  return {
    keep(socket) {
      const name = nameOf(socket)
      sockets.set(name, socket)
      socket.on('close', () => sockets.delete(name))
    },
    of: (upper) => sockets.get(nameOf(upper)) ?? upper,
  }
}

/** Notes what a socket brings until its login: after a fault its memory is given back, with that of whatever comes behind it. */
function keepArrived(socket: Socket): { forget(): void; release(): void } {
  let chunks: Buffer[] = []
  let failed = false
  const note = (chunk: Buffer): void => {
    chunks.push(chunk)
    if (failed) releaseAll()
  }
  const releaseAll = (): void => {
    failed = true
    for (const chunk of chunks) release(chunk)
    chunks = []
  }
  socket.on('data', note)
  socket.once('close', releaseAll)
  return {
    release: releaseAll,
    forget() {
      chunks = []
      socket.off('data', note).off('close', releaseAll)
    },
  }
}

/** ws has one limit for all; before its login a client needs no more than a CONNECT. Its types leave the receiver out (ws 8). */
function takeMessagesOf(socket: WebSocket, bytes: number): void {
  ;(socket as WebSocket & { _receiver: { _maxPayload: number } })._receiver._maxPayload = bytes
}

/** As many as Linux allows by default: a fleet that comes back at once, or a flood, must not make others wait for their SYN. */
const BACKLOG = 4096

/** Sockets are handed to the gate unread; `begin` makes an MQTT stream of one, once it may be read. */
async function listen(gate: Gate, place: Place, begin: (socket: Socket) => void): Promise<Listener> {
  const sockets = new Set<Socket>()
  const server: Server = createServer({ noDelay: true, pauseOnConnect: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    gate.enter(socket, begin)
  })
  const port = await bind(server, place, { backlog: BACKLOG })
  return {
    port,
    close: () => new Promise((resolve) => server.close(() => resolve())),
    terminate() {
      for (const socket of sockets) socket.destroy()
    },
  }
}
