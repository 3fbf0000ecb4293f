import { once } from 'node:events'
import { createServer as createHttpServer, type RequestListener } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import type { Aedes } from 'aedes'
import { createWebSocketStream, WebSocketServer } from 'ws'
import type { Certificate } from '../control/certificate.ts'

export interface Listener {
  port: number
  /** Takes no more connections; resolves when the last one is gone. */
  close(): Promise<void>
  /** Ends the connections that are left, whatever state they are in. */
  terminate(): void
}

/** Where a listener binds, and the setting that says so. With a certificate it speaks TLS. */
export interface Place {
  host: string
  port: number
  setting: string
  certificate?: Certificate | undefined
}

/** MQTT over TCP or TLS. Throws an error that names the setting if the port is taken. */
export async function listenTcp(broker: Aedes, place: Place): Promise<Listener> {
  const sockets = new Set<Socket>()
  const keep = (socket: Socket): void => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  }
  const { certificate } = place
  const server = certificate
    ? createTlsServer({ ...certificate.options, noDelay: true }, (socket) => broker.handle(socket))
    : createServer({ noDelay: true }, (socket) => broker.handle(socket))
  // Also the sockets whose handshake is not over.
  server.on('connection', keep)
  if (certificate) certificate.renews(server as ReturnType<typeof createTlsServer>)
  const listener = await listen(server, place)
  return {
    ...listener,
    terminate() {
      for (const socket of sockets) socket.destroy()
    },
  }
}

const upgradeRequired: RequestListener = (_request, response) => {
  response
    .writeHead(426, { 'content-type': 'text/plain', connection: 'close' })
    .end('MQTT over WebSocket: connect to /mqtt\n')
}

/** MQTT over WebSocket, path /mqtt, subprotocol `mqtt` [MQTT-6.0.0-3]. */
export async function listenWebSocket(broker: Aedes, place: Place): Promise<Listener> {
  const { certificate } = place
  const server = certificate
    ? createHttpsServer(certificate.options, upgradeRequired)
    : createHttpServer(upgradeRequired)
  if (certificate) certificate.renews(server as ReturnType<typeof createHttpsServer>)
  const sockets = new WebSocketServer({
    server,
    path: '/mqtt',
    handleProtocols: (offered) => (offered.has('mqtt') ? 'mqtt' : false),
  })
  // It repeats its server's errors; `listen` answers for those.
  sockets.on('error', () => undefined)
  sockets.on('connection', (socket, request) => {
    if (socket.protocol !== 'mqtt') return socket.close(1002, 'subprotocol mqtt is required')
    const stream = createWebSocketStream(socket)
    broker.handle(stream, request)
  })
  const listener = await listen(server, place)
  return {
    port: listener.port,
    async close() {
      for (const socket of sockets.clients) socket.terminate()
      sockets.close()
      await listener.close()
    },
    terminate() {
      for (const socket of sockets.clients) socket.terminate()
      server.closeAllConnections()
    },
  }
}

async function listen(server: Server, { host, port, setting }: Place): Promise<Omit<Listener, 'terminate'>> {
  server.listen(port, host)
  try {
    await once(server, 'listening')
  } catch (error) {
    const taken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
    throw taken ? new Error(`${setting}: port ${port} on ${host} is taken; choose another or stop what uses it`) : error
  }
  return {
    port: (server.address() as { port: number }).port,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  }
}
