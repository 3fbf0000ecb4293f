import { once } from 'node:events'
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'
import type { Luck } from './luck.ts'

/** A network between the devices and the server, which breaks in the ways that networks do. */
export interface FaultyNetwork extends AsyncDisposable {
  port: number
  /** Connections that carry bytes. */
  connected(): number
  /** Ends this share of the connections, as a router that is switched off. Answers how many. */
  cut(share: number, luck: Luck): number
  /** From now on, new connections are refused. */
  shut(): void
  /** From now on, new connections are taken, and nobody is behind them. */
  deafen(): void
  /**
   * This share of the connections stays open and loses every byte one way or both ways, the end of the other side too.
   * Answers them.
   */
  swallow(share: number, luck: Luck, ways?: Way[]): HalfOpen[]
  /** This share of the connections passes so many bytes per second. */
  slow(share: number, bytesPerSecond: number, luck: Luck): number
  /** New connections pass, slow ones are fast again; what is half-open stays so. */
  mend(): void
  /** Both sides of what is half-open hear that it has ended. */
  reset(): void
}

type Way = 'up' | 'down'

/** A half-open connection: when each side gave it up, ms after it began; undefined while it has not. */
export interface HalfOpen {
  ways: Way[]
  device: number | undefined
  server: number | undefined
}

interface Pipe {
  from: Socket
  to: Socket
  swallows: boolean
  bytesPerSecond: number
}

interface Line {
  near: Socket
  far: Socket
  up: Pipe
  down: Pipe
  halfOpen: (HalfOpen & { since: number }) | undefined
}

const TICK_MS = 20

export async function openFaultyNetwork(target: { host: string; port: number }): Promise<FaultyNetwork> {
  const lines = new Set<Line>()
  const sockets = new Set<Socket>()
  let door: 'open' | 'shut' | 'deaf' = 'open'

  const server = createServer({ noDelay: true }, (near) => {
    keep(near)
    if (door === 'shut') return near.destroy()
    if (door === 'deaf') return
    const far = createConnection({ ...target, noDelay: true })
    keep(far)
    const line: Line = { near, far, up: pipe(near, far), down: pipe(far, near), halfOpen: undefined }
    lines.add(line)
    near.once('close', () => closed(line, 'device'))
    far.once('close', () => closed(line, 'server'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')

  function keep(socket: Socket): void {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.once('close', () => sockets.delete(socket))
  }

  /** One side has ended the connection: the other one hears of it, unless that is swallowed too. */
  function closed(line: Line, side: 'device' | 'server'): void {
    const { halfOpen, near, far } = line
    if (halfOpen) halfOpen[side] ??= performance.now() - halfOpen.since
    const [other, way] = side === 'device' ? ([far, line.up] as const) : ([near, line.down] as const)
    if (!way.swallows) other.destroy()
    if (near.closed && far.closed) lines.delete(line)
    else if (near.destroyed && far.destroyed) lines.delete(line)
  }

  const some = (share: number, luck: Luck): Line[] =>
    [...lines].filter((line) => !line.halfOpen && !line.near.destroyed && !line.far.destroyed && luck.chance(share))

  return {
    port: (server.address() as AddressInfo).port,
    connected: () => [...lines].filter((line) => !line.halfOpen).length,
    cut(share, luck) {
      const hit = some(share, luck)
      for (const { near, far } of hit) for (const socket of [near, far]) socket.destroy()
      return hit.length
    },
    shut() {
      door = 'shut'
    },
    deafen() {
      door = 'deaf'
    },
    swallow(share, luck, ways) {
      return some(share, luck).map((line) => {
        const lost = ways ?? luck.pick<Way[]>([['up'], ['down'], ['up', 'down']])
        for (const way of lost) line[way].swallows = true
        line.halfOpen = { ways: lost, device: undefined, server: undefined, since: performance.now() }
        return line.halfOpen
      })
    },
    slow(share, bytesPerSecond, luck) {
      const hit = some(share, luck)
      for (const { up, down } of hit) for (const way of [up, down]) way.bytesPerSecond = bytesPerSecond
      return hit.length
    },
    mend() {
      door = 'open'
      for (const { up, down } of lines) for (const way of [up, down]) way.bytesPerSecond = Number.POSITIVE_INFINITY
    },
    reset() {
      for (const { near, far, halfOpen } of lines) if (halfOpen) for (const socket of [near, far]) socket.destroy()
    },
    async [Symbol.asyncDispose]() {
      const ended = once(server, 'close')
      server.close()
      for (const socket of sockets) socket.destroy()
      await ended
    },
  }
}

/** Passes bytes on, in the order and at the speed that the pipe has at the moment. */
function pipe(from: Socket, to: Socket): Pipe {
  const made: Pipe = { from, to, swallows: false, bytesPerSecond: Number.POSITIVE_INFINITY }
  from.on('data', (chunk) => {
    if (made.swallows) return
    if (made.bytesPerSecond === Number.POSITIVE_INFINITY) return void to.write(chunk)
    from.pause()
    trickle(made, chunk)
  })
  from.on('end', () => {
    if (!made.swallows) to.end()
  })
  return made
}

function trickle(pipe: Pipe, left: Buffer): void {
  if (pipe.swallows || pipe.to.destroyed) return void pipe.from.resume()
  const bytes = Math.max(1, Math.min(left.length, Math.floor((pipe.bytesPerSecond * TICK_MS) / 1000)))
  pipe.to.write(left.subarray(0, bytes))
  if (bytes === left.length) pipe.from.resume()
  else setTimeout(() => trickle(pipe, left.subarray(bytes)), TICK_MS)
}
