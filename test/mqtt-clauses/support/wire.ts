import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import { until } from '../../support/until.ts'

export const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 0xff])

/** A string as MQTT writes it: two bytes of length first. */
export const text = (value: string | Buffer): Buffer => {
  const bytes = Buffer.from(value as string)
  return Buffer.concat([u16(bytes.length), bytes])
}

type Part = number | string | Buffer

/** A whole packet: its first byte, the remaining length, then each part: a byte, a string, or bytes as they are. */
export function packet(first: number, ...parts: Part[]): Buffer {
  const body = Buffer.concat(parts.map(bytesOf))
  const length: number[] = []
  let rest = body.length
  do {
    length.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    rest >>= 7
  } while (rest > 0)
  return Buffer.concat([Buffer.from([first, ...length]), body])
}

const bytesOf = (part: Part): Buffer =>
  typeof part === 'number' ? Buffer.from([part]) : typeof part === 'string' ? text(part) : part

export const hex = (bytes: string): Buffer => Buffer.from(bytes.replaceAll(' ', ''), 'hex')

interface ConnectParts {
  name?: Part
  level?: number
  flags?: number
  keepalive?: number
  clientId?: string | Buffer
  /** What comes behind the client id. */
  rest?: Part[]
  first?: number
}

/** A CONNECT; what is not given is as a plain anonymous client would have it. */
export const connect = (parts: ConnectParts = {}): Buffer =>
  packet(
    parts.first ?? 0x10,
    parts.name ?? 'MQTT',
    parts.level ?? 4,
    parts.flags ?? 0x02,
    u16(parts.keepalive ?? 60),
    text(parts.clientId ?? 'c'),
    ...(parts.rest ?? []),
  )

export const CONNACK = hex('20 02 00 00')
export const PINGREQ = hex('C0 00')
export const PINGRESP = hex('D0 00')

/** A bare connection: what was sent to us, byte by byte. */
export interface Wire {
  socket: Socket
  received(): Buffer
  closed(): boolean
  send(...bytes: Buffer[]): void
  /** Waits until just these bytes have come, since the last call. */
  expect(bytes: Buffer, what?: string): Promise<void>
  /** Waits for a packet that begins with this byte, and takes what came before it; answers it without its first two bytes. */
  take(first: number, what?: string): Promise<Buffer>
  /** Waits for the end; answers what came before it. */
  end(): Promise<Buffer>
  drop(): void
}

export async function openWire(port: number, host = '127.0.0.1'): Promise<Wire> {
  const socket = createConnection({ port, host, noDelay: true })
  await once(socket, 'connect')
  let buffer: Buffer = Buffer.alloc(0)
  let closed = false
  socket.on('data', (chunk: Buffer) => {
    buffer = Buffer.concat([buffer, chunk])
  })
  socket.on('error', () => undefined)
  socket.on('close', () => {
    closed = true
  })
  const shown = (): string => `${buffer.toString('hex')}${closed ? ', closed' : ''}`
  const failing = async <T>(waiting: Promise<T>): Promise<T> =>
    waiting.catch((error: Error) => {
      throw new Error(`${error.message}: received ${shown()}`)
    })
  return {
    socket,
    received: () => buffer,
    closed: () => closed,
    send: (...bytes) => void socket.write(Buffer.concat(bytes)),
    async expect(bytes, what = bytes.toString('hex')) {
      await failing(until(() => buffer.length >= bytes.length || closed, what))
      const came = buffer.subarray(0, bytes.length)
      if (!came.equals(bytes)) throw new Error(`expected ${what}, received ${shown()}`)
      buffer = buffer.subarray(bytes.length)
    },
    async take(first, what = first.toString(16)) {
      for (;;) {
        await failing(until(() => buffer.length >= 2 && buffer.length >= 2 + (buffer[1] as number), what))
        const body = buffer.subarray(2, 2 + (buffer[1] as number))
        const type = buffer[0]
        buffer = buffer.subarray(2 + body.length)
        if (type === first) return body
      }
    },
    async end() {
      await failing(until(() => closed, 'the connection closes'))
      return buffer
    },
    drop: () => socket.destroy(),
  }
}
