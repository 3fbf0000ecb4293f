import { bodyFault, CONNECT, DISCONNECT, headerFault, type PacketLimits } from './packets.ts'

/** The longest fixed header: a byte, and a length of up to four [MQTT-2.2.3]. */
const MAX_HEADER = 5
const FIRST_ROOM = 256

interface Pushed {
  packets: number
  rest: Buffer
  fault: string | undefined
}

export interface Frame {
  bytes: Buffer
  /** Where the fixed header ends. */
  body: number
}

/**
 * Cuts what arrives into whole packets and judges each, so that nothing is parsed that is not well-formed and nothing is kept that
 * is too large. Whole packets are passed on in the chunk they came in; only a packet that is spread over chunks is copied, once.
 */
export class FrameReader {
  readonly #limits: PacketLimits
  readonly #header: Header = { size: 0, body: 0, fault: undefined }
  /** The beginning of a packet that is not complete: `#kept` bytes of it. */
  #buffer: Buffer | undefined
  #kept = 0
  /** After DISCONNECT nothing counts any more [MQTT-3.14.4-1]. */
  #over = false

  constructor(limits: PacketLimits) {
    this.#limits = limits
  }

  /** A packet has begun and is not complete. */
  get incomplete(): boolean {
    return this.#kept > 0
  }

  /** Takes the CONNECT out of the first chunks; `rest` is what came behind it. Undefined until it is there. */
  first(chunk: Buffer): { connect: Frame; rest: Buffer } | { fault: string } | undefined {
    const type = ((this.#kept > 0 ? this.#buffer : chunk) as Buffer)[0] as number
    if (type >> 4 !== CONNECT) return { fault: 'the first packet is no CONNECT [MQTT-3.1.0-1]' }
    const taken = this.#keep(chunk, 0)
    const { fault, body } = this.#header
    if (fault) return { fault }
    if (!this.#isWhole()) return undefined
    return { connect: { body, bytes: this.#takeKept() }, rest: chunk.subarray(taken) }
  }

  /** Passes whole packets on, at most so many; what it did not look at is the rest. A fault: the connection must end. */
  push(chunk: Buffer, most: number, pass: (packets: Buffer) => void): Pushed {
    const header = this.#header
    let packets = 0
    let at = 0
    let fault: string | undefined
    if (this.#kept > 0 && !this.#over) {
      at = this.#keep(chunk, 0)
      if (!header.fault && !this.#isWhole()) return { packets, rest: NOTHING, fault }
      const whole = this.#takeKept()
      fault = this.#judge(whole, 0)
      packets++
      if (!fault) pass(whole)
    }
    const begin = at
    while (!fault && !this.#over && packets < most && this.#readHeader(chunk, at, chunk.length)) {
      if (!header.fault && at + header.size > chunk.length) break
      fault = this.#judge(chunk, at)
      packets++
      if (!fault) at += header.size
    }
    if (at > begin) pass(at - begin === chunk.length ? chunk : chunk.subarray(begin, at))
    if (fault || this.#over) return { packets, rest: NOTHING, fault }
    if (packets >= most) return { packets, rest: chunk.subarray(at), fault }
    if (at < chunk.length) this.#keep(chunk, at)
    return { packets, rest: NOTHING, fault: header.fault }
  }

  /** What is wrong with the packet whose header was just read. */
  #judge(bytes: Buffer, from: number): string | undefined {
    const { body, size, fault } = this.#header
    const first = bytes[from] as number
    if (first >> 4 === CONNECT) return 'a second CONNECT [MQTT-3.1.0-2]'
    const found = fault ?? bodyFault(first, bytes, from + body, from + size, this.#limits)
    this.#over = first >> 4 === DISCONNECT && !found
    return found
  }

  #readHeader(bytes: Buffer, from: number, to: number): boolean {
    return parseHeader(bytes, from, to, this.#limits, this.#header)
  }

  /** Adds to the packet that has begun; answers how many bytes of the chunk that took. */
  #keep(chunk: Buffer, from: number): number {
    const header = this.#header
    let at = from
    while (at < chunk.length) {
      // Its size is known once its fixed header is there, which is read byte by byte.
      const known = this.#kept > 0 && this.#readHeader(this.#buffer as Buffer, 0, this.#kept)
      if (known && (header.fault || this.#kept === header.size)) break
      const missing = known ? header.size - this.#kept : 1
      const taken = Math.min(missing, chunk.length - at)
      this.#buffer = withRoom(this.#buffer, this.#kept, this.#kept + taken, known ? header.size : FIRST_ROOM)
      chunk.copy(this.#buffer, this.#kept, at, at + taken)
      this.#kept += taken
      at += taken
    }
    this.#readHeader(this.#buffer as Buffer, 0, this.#kept)
    return at - from
  }

  #isWhole(): boolean {
    return this.#kept > 0 && this.#header.size === this.#kept
  }

  #takeKept(): Buffer {
    const whole = (this.#buffer as Buffer).subarray(0, this.#kept)
    this.#buffer = undefined
    this.#kept = 0
    return whole
  }
}

const NOTHING = Buffer.alloc(0)

interface Header {
  /** Of the whole packet. */
  size: number
  /** Where its variable header begins. */
  body: number
  fault: string | undefined
}

/** Reads a fixed header into `header`; false if there is not all of it yet. */
function parseHeader(bytes: Buffer, from: number, to: number, limits: PacketLimits, header: Header): boolean {
  header.size = 0
  header.fault = undefined
  let length = 0
  for (let digit = 1; digit < MAX_HEADER; digit++) {
    if (from + digit >= to) return false
    const byte = bytes[from + digit] as number
    length += (byte & 0x7f) << (7 * (digit - 1))
    if (byte & 0x80) continue
    header.body = digit + 1
    header.size = header.body + length
    header.fault = headerFault(bytes[from] as number, length, header.size, limits)
    return true
  }
  header.fault = 'a remaining length of more than four bytes (MQTT 2.2.3)'
  return true
}

/** Grows by doubling up to the packet's size: what a sender announces costs nothing before it comes. */
function withRoom(buffer: Buffer | undefined, kept: number, needed: number, size: number): Buffer {
  if (buffer && buffer.length >= needed) return buffer
  const room = Math.max(needed, Math.min(size, Math.max(FIRST_ROOM, kept * 2)))
  // Not from the pool: a byte that is waited for would keep all of a slab.
  const larger = Buffer.allocUnsafeSlow(room)
  buffer?.copy(larger, 0, 0, kept)
  return larger
}
