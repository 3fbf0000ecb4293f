import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'

/** What stands before several nodes: a connection goes to the next one that takes it, in turn. */
export async function openBalancer(port: number, targets: () => number[]): Promise<AsyncDisposable> {
  const sockets = new Set<Socket>()
  let turn = 0

  function keep(socket: Socket): void {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => sockets.delete(socket))
  }

  function connect(near: Socket, [target, ...others]: number[]): void {
    if (target === undefined || near.destroyed) return void near.destroy()
    const far = createConnection({ port: target, host: '127.0.0.1', noDelay: true })
    keep(far)
    far.once('connect', () => {
      near.pipe(far)
      far.pipe(near)
      near.once('close', () => far.destroy())
      far.once('close', () => near.destroy())
    })
    far.once('error', () => {
      if (far.connecting || far.bytesRead + far.bytesWritten === 0) connect(near, others)
    })
  }

  const server = createServer({ noDelay: true, pauseOnConnect: true }, (near) => {
    keep(near)
    const all = targets()
    const first = turn++ % Math.max(1, all.length)
    connect(near, [...all.slice(first), ...all.slice(0, first)])
  })
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
