import { connect, hex, packet, text, u16 } from './wire.ts'

/** Numbers from a seed: the same every time (mulberry32). */
export function createRandom(seed: number): { below(limit: number): number; bytes(length: number): Buffer } {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
  const below = (limit: number): number => Math.floor(next() * limit)
  return { below, bytes: (length) => Buffer.from(Array.from({ length }, () => below(256))) }
}

type Random = ReturnType<typeof createRandom>

const ID = u16(0x0102)

/** What everything is made from: well-formed packets of every kind, and a few that were trouble somewhere. */
const CORPUS: Buffer[] = [
  connect(),
  connect({ flags: 0xc6, clientId: 'fuzz', rest: ['will/topic', 'message', 'user', 'password'] }),
  connect({ flags: 0x36, clientId: '', rest: ['will', ''] }),
  connect({ name: 'MQIsdp', level: 3, clientId: 'old' }),
  connect({ level: 5, rest: [hex('00')] }),
  packet(0x30, 'topic', Buffer.from('payload')),
  packet(0x31, 'a/b/c', Buffer.alloc(200)),
  packet(0x32, 'topic/one', ID, Buffer.from('{"id":"x"}')),
  packet(0x3d, '/', ID),
  packet(0x30, text('온도'), Buffer.alloc(20_000)),
  packet(0x40, ID),
  packet(0x50, ID),
  packet(0x62, ID),
  packet(0x70, ID),
  packet(0x82, ID, 'a/+/b', 0, '#', 1, '+', 2),
  packet(0x82, ID, 'a'.repeat(300), 2),
  packet(0x82, ID, `${'/'.repeat(31)}`, 0),
  packet(0xa2, ID, 'a/+/b', 'topic'),
  hex('C0 00'),
  hex('E0 00'),
  hex('20 02 00 00'),
  hex('90 03 00 01 00'),
  hex('F0 00'),
  hex('00 00'),
  hex('30 FF FF FF 7F'),
  hex('10 80 80 80 80 01'),
]

const MUTATIONS: ((bytes: Buffer, random: Random) => Buffer)[] = [
  (bytes) => bytes,
  // A bit.
  (bytes, random) => changed(bytes, random, (byte) => byte ^ (1 << random.below(8))),
  // A byte, often one that means something.
  (bytes, random) =>
    changed(bytes, random, () => [0, 1, 2, 0x23, 0x2b, 0x2f, 0x7f, 0x80, 0xc0, 0xff][random.below(10)] as number),
  (bytes, random) => bytes.subarray(0, random.below(bytes.length + 1)),
  (bytes, random) => Buffer.concat([bytes, random.bytes(1 + random.below(8))]),
  (bytes, random) => {
    const at = random.below(bytes.length + 1)
    return Buffer.concat([bytes.subarray(0, at), random.bytes(1 + random.below(4)), bytes.subarray(at)])
  },
  (bytes, random) => {
    const at = random.below(bytes.length + 1)
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random.below(4))])
  },
  // Its remaining length says something else.
  (bytes, random) => Buffer.concat([bytes.subarray(0, 1), Buffer.from([random.below(128)]), bytes.subarray(2)]),
  // Half of this, half of that.
  (bytes, random) => {
    const other = CORPUS[random.below(CORPUS.length)] as Buffer
    return Buffer.concat([
      bytes.subarray(0, random.below(bytes.length + 1)),
      other.subarray(random.below(other.length)),
    ])
  },
  // Another type with this body.
  (bytes, random) => Buffer.concat([Buffer.from([random.below(256)]), bytes.subarray(1)]),
  (_bytes, random) => random.bytes(random.below(40)),
]

function changed(bytes: Buffer, random: Random, change: (byte: number) => number): Buffer {
  const copy = Buffer.from(bytes)
  if (copy.length > 0) {
    const at = random.below(Math.min(copy.length, 64))
    copy[at] = change(copy[at] as number)
  }
  return copy
}

/** One packet of the corpus, as it is or spoiled once or a few times. */
export function malformed(random: Random): Buffer {
  let bytes = CORPUS[random.below(CORPUS.length)] as Buffer
  for (let times = random.below(3); times >= 0; times--) {
    bytes = MUTATIONS[random.below(MUTATIONS.length)]?.(bytes, random) as Buffer
  }
  return bytes
}

const LEVELS = ['a', 'b', '', 'long level', '온도', '$SYS', '__proto__', 'constructor']

function topicOf(random: Random): string {
  const levels = Array.from({ length: 1 + random.below(4) }, () => LEVELS[random.below(LEVELS.length)])
  return levels.join('/') || '/'
}

function filterOf(random: Random): string {
  const levels = topicOf(random)
    .split('/')
    .map((level) => (random.below(4) === 0 ? '+' : level))
  return random.below(4) === 0 ? [...levels, '#'].join('/') : levels.join('/') || '+'
}

const idOf = (random: Random): Buffer => u16(1 + random.below(6))

const PACKETS: ((random: Random) => Buffer)[] = [
  (random) => packet(0x30 | random.below(2), topicOf(random), random.bytes(random.below(20))),
  (random) => packet(0x32 | (random.below(2) * 9), topicOf(random), idOf(random), random.bytes(random.below(20))),
  (random) => packet(0x34 | (random.below(2) * 9), topicOf(random), idOf(random), random.bytes(random.below(20))),
  (random) => packet([0x40, 0x50, 0x62, 0x70][random.below(4)] as number, idOf(random)),
  (random) => packet(0x62, idOf(random)),
  (random) =>
    packet(0x82, idOf(random), ...Array.from({ length: 3 }, () => [filterOf(random), random.below(3)]).flat()),
  (random) => packet(0xa2, idOf(random), filterOf(random), filterOf(random)),
  () => hex('C0 00'),
]

/** A packet that is well-formed and comes at a strange moment. */
export const untimely = (random: Random): Buffer =>
  (PACKETS[random.below(PACKETS.length)] as (typeof PACKETS)[0])(random)
