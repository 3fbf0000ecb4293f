import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type Server, type Socket } from 'node:net'
import type { Aedes } from 'aedes'
import { createWebSocketStream, WebSocketServer } from 'ws'

export interface Listener {
  port: number
  /** Takes no more connections; resolves when the last one is gone. */
  close(): Promise<void>
  /** Ends the connections that are left, whatever state they are in. */
  terminate(): void
}

/** MQTT over TCP. Throws an error that names the setting if the port is taken. */
export async function listenTcp(broker: Aedes, host: string, port: number): Promise<Listener> {
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    broker.handle(socket)
  })
  const listener = await listen(server, host, port, 'MQTT_PORT')
  return {
    ...listener,
    terminate() {
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** MQTT over WebSocket, path /mqtt, subprotocol `mqtt` [MQTT-6.0.0-3]. */
export async function listenWebSocket(broker: Aedes, host: string, port: number): Promise<Listener> {
  const server = createHttpServer((_request, response) => {
    response
      .writeHead(426, { 'content-type': 'text/plain', connection: 'close' })
      .end('MQTT over WebSocket: connect to /mqtt\n')
  })
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
  const listener = await listen(server, host, port, 'MQTT_WS_PORT')
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

async function listen(
  server: Server,
  host: string,
  port: number,
  setting: string,
): Promise<Omit<Listener, 'terminate'>> {
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
