import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'

/** A TCP port in front of another one, which can be cut like a cable. */
export interface Relay extends AsyncDisposable {
  readonly port: number
  /** Ends every connection, and from now on every new one at once. */
  cut(): void
  restore(): void
}

/** Listens on a free port of 127.0.0.1 and passes everything on to `target`. */
export async function openRelay(target: { host: string; port: number }): Promise<Relay> {
  const sockets = new Set<Socket>()
  let whole = true
  const keep = (socket: Socket): void => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => sockets.delete(socket))
  }
  const drop = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  const server = createServer({ noDelay: true }, (near) => {
    if (!whole) return near.destroy()
    const far = createConnection({ ...target, noDelay: true })
    keep(near)
    keep(far)
    near.pipe(far).pipe(near)
    near.once('close', () => far.destroy())
    far.once('close', () => near.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      whole = false
      drop()
    },
    restore() {
      whole = true
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      drop()
      await closed
    },
  }
}

/** The same address through the relay. */
export function throughRelay(url: string, { port }: Relay): string {
  const address = new URL(url)
  address.hostname = '127.0.0.1'
  address.port = String(port)
  return address.href.replace(/\/$/, '')
}

/** Host and port behind an MQTT address. */
export function addressOf(url: string): { host: string; port: number } {
  const { hostname, port, protocol } = new URL(url)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) || { 'mqtt:': 1883, 'ws:': 80 }[protocol] || 0 }
}
