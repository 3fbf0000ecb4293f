import { bodyFault, CONNECT, DISCONNECT, headerFault, type PacketLimits } from './packets.ts'

/** The longest fixed header: a byte, and a length of up to four [MQTT-2.2.3]. */
const MAX_HEADER = 5
const FIRST_ROOM = 256

/**
 * Cuts what arrives into whole packets and judges each, so that nothing is parsed that is not well-formed and nothing is kept that
 * is too large. Whole packets are passed on in the chunk they came in; only a packet that is spread over chunks is copied, once.
 */
export interface FrameReader {
  /** Takes the CONNECT out of the first chunks; `rest` is what came behind it. Undefined until it is there. */
  first(chunk: Buffer): { connect: Frame; rest: Buffer } | { fault: string } | undefined
  /** Passes whole packets on, at most so many; what it did not look at is the rest. A fault: the connection must end. */
  push(chunk: Buffer, most: number, pass: (packets: Buffer) => void): Pushed
  /** A packet has begun and is not complete. */
  readonly incomplete: boolean
}

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

export function createFrameReader(limits: PacketLimits): FrameReader {
  /** The beginning of a packet that is not complete: `kept` bytes of it. */
  let buffer: Buffer | undefined
  let kept = 0
  /** After DISCONNECT nothing counts any more [MQTT-3.14.4-1]. */
  let over = false

  const header: Header = { size: 0, body: 0, fault: undefined }

  function readHeader(bytes: Buffer, from: number, to: number): boolean {
    return parseHeader(bytes, from, to, limits, header)
  }

  /** Adds to the packet that has begun; answers how many bytes of the chunk that took. */
  function keep(chunk: Buffer, from: number): number {
    let at = from
    while (at < chunk.length) {
      // Its size is known once its fixed header is there, which is read byte by byte.
      const known = kept > 0 && readHeader(buffer as Buffer, 0, kept)
      if (known && (header.fault || kept === header.size)) break
      const missing = known ? header.size - kept : 1
      const taken = Math.min(missing, chunk.length - at)
      buffer = withRoom(buffer, kept, kept + taken, known ? header.size : FIRST_ROOM)
      chunk.copy(buffer, kept, at, at + taken)
      kept += taken
      at += taken
    }
    readHeader(buffer as Buffer, 0, kept)
    return at - from
  }

  const isWhole = (): boolean => kept > 0 && header.size === kept

  function takeKept(): Buffer {
    const whole = (buffer as Buffer).subarray(0, kept)
    buffer = undefined
    kept = 0
    return whole
  }

  return {
    get incomplete() {
      return kept > 0
    },

    first(chunk) {
      const type = ((kept > 0 ? buffer : chunk) as Buffer)[0] as number
      if (type >> 4 !== CONNECT) return { fault: 'the first packet is no CONNECT [MQTT-3.1.0-1]' }
      const taken = keep(chunk, 0)
      if (header.fault) return { fault: header.fault }
      if (!isWhole()) return undefined
      return { connect: { body: header.body, bytes: takeKept() }, rest: chunk.subarray(taken) }
    },

    push(chunk, most, pass) {
      let packets = 0
      let at = 0
      let fault: string | undefined
      /** Judges the packet whose header was just read. */
      const isGood = (bytes: Buffer, from: number): boolean => {
        const first = bytes[from] as number
        const body = from + header.body
        if (first >> 4 === CONNECT) fault = 'a second CONNECT [MQTT-3.1.0-2]'
        else fault = header.fault ?? bodyFault(first, bytes, body, from + header.size, limits)
        over = first >> 4 === DISCONNECT && !fault
        packets++
        return !fault
      }
      if (kept > 0 && !over) {
        at = keep(chunk, 0)
        if (!header.fault && !isWhole()) return { packets, rest: NOTHING, fault }
        const whole = takeKept()
        if (isGood(whole, 0)) pass(whole)
      }
      const begin = at
      while (!fault && !over && packets < most && readHeader(chunk, at, chunk.length)) {
        if (!header.fault && at + header.size > chunk.length) break
        if (isGood(chunk, at)) at += header.size
      }
      if (at > begin) pass(at - begin === chunk.length ? chunk : chunk.subarray(begin, at))
      if (fault || over) return { packets, rest: NOTHING, fault }
      if (packets >= most) return { packets, rest: chunk.subarray(at), fault }
      if (at < chunk.length) keep(chunk, at)
      return { packets, rest: NOTHING, fault: header.fault }
    },
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
