import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type Server } from 'node:net'
import type { Aedes } from 'aedes'
import { createWebSocketStream, WebSocketServer } from 'ws'

export interface Listener {
  port: number
  close(): Promise<void>
}

/** MQTT over TCP. Throws an error that names the setting if the port is taken. */
export async function listenTcp(broker: Aedes, host: string, port: number): Promise<Listener> {
  const server = createServer({ noDelay: true }, (socket) => void broker.handle(socket))
  return listen(server, host, port, 'MQTT_PORT')
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
  }
}

async function listen(server: Server, host: string, port: number, setting: string): Promise<Listener> {
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
