import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'

/** The way to Redis: every byte takes so long, in their order; or the way is cut. */
export interface SlowLine {
  url: string
  /** Milliseconds each way. */
  delay(ms: number): void
  cut(): void
  mend(): void
  stop(): Promise<void>
}

export async function openSlowLine(port: number): Promise<SlowLine> {
  let delayMs = 0
  let open = true
  const sockets = new Set<Socket>()

  function keep(socket: Socket): void {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => sockets.delete(socket))
  }

  function pass(from: Socket, to: Socket): void {
    let tail = Promise.resolve()
    const later = (act: () => void): void => {
      const at = performance.now() + delayMs
      tail = tail
        .then(() => new Promise<void>((resolve) => setTimeout(resolve, Math.max(0, at - performance.now()))))
        .then(act)
    }
    from.on('data', (chunk) => (delayMs === 0 ? void tail.then(() => to.write(chunk)) : later(() => to.write(chunk))))
    from.once('close', () => to.destroy())
  }

  const server = createServer({ noDelay: true }, (near) => {
    keep(near)
    if (!open) return near.destroy()
    const far = createConnection({ port, host: '127.0.0.1', noDelay: true })
    keep(far)
    pass(near, far)
    pass(far, near)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const destroyAll = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
    delay(ms) {
      delayMs = ms
    },
    cut() {
      open = false
      destroyAll()
    },
    mend() {
      open = true
    },
    async stop() {
      const closed = once(server, 'close')
      server.close()
      destroyAll()
      await closed
    },
  }
}
