import fc from 'fast-check'
import * as mqtt from 'mqtt-packet'
import { expect, test } from 'vitest'
import { FrameReader } from '../../broker/gate/frames.ts'
import type { PacketLimits } from '../../broker/gate/packets.ts'
import { createRandom, malformed } from './support/fuzz.ts'
import { connect } from './support/wire.ts'

const LIMITS: PacketLimits = {
  connectBytes: 4096,
  packetBytes: 100_000,
  topicBytes: 1024,
  topicLevels: 32,
  filters: 1000,
}
const SEED = 20_240_229
const PACKETS = 100_000

/** What a reader passes of these pieces, and why it stops, if it does. */
function read(pieces: Buffer[], most = Number.MAX_SAFE_INTEGER) {
  const reader = new FrameReader(LIMITS)
  const passed: Buffer[] = []
  let packets = 0
  for (const piece of pieces) {
    let rest = piece
    while (rest.length > 0) {
      // What is passed on may be a part of what came.
      const pushed = reader.push(Buffer.from(rest), most, (bytes) => passed.push(Buffer.from(bytes)))
      packets += pushed.packets
      if (pushed.fault) return { passed: Buffer.concat(passed), packets: packets - 1, fault: pushed.fault }
      rest = pushed.rest
    }
  }
  return { passed: Buffer.concat(passed), packets, fault: undefined }
}

test(`of ${PACKETS} spoiled packets nothing is passed on that the parser refuses`, () => {
  const random = createRandom(SEED)
  let passed = 0
  let refused = 0
  for (let count = 0; count < PACKETS; count++) {
    const bytes = malformed(random)
    if (bytes.length === 0) continue
    const verdict = read([bytes])
    if (verdict.fault) refused++
    if (verdict.passed.length === 0) continue
    const parser = mqtt.parser({ protocolVersion: 4 })
    let parsed = 0
    parser.on('packet', () => parsed++)
    parser.on('error', (error) => {
      throw new Error(`${error.message}: ${bytes.toString('hex')}`)
    })
    parser.parse(verdict.passed)
    expect(parsed, bytes.toString('hex')).toBe(verdict.packets)
    passed += parsed
  }
  console.log(`seed ${SEED}: ${PACKETS} spoiled packets, ${refused} refused, ${passed} packets passed on`)
  expect(refused).toBeGreaterThan(PACKETS / 4)
  expect(passed).toBeGreaterThan(PACKETS / 20)
}, 60_000)

const stream = fc
  .integer({ min: 1, max: 0x7fff_ffff })
  .map((seed) => {
    const random = createRandom(seed)
    return Buffer.concat(Array.from({ length: 1 + random.below(6) }, () => malformed(random)))
  })
  .filter((bytes) => bytes.length > 0)

test('however a stream is cut, and however few packets are taken at once, the same of it is passed on', () => {
  fc.assert(
    fc.property(stream, fc.array(fc.nat(), { maxLength: 12 }), fc.integer({ min: 1, max: 4 }), (bytes, cuts, most) => {
      const places = [...new Set(cuts.map((cut) => cut % bytes.length))].sort((a, b) => a - b)
      const pieces = [0, ...places].map((from, index) => bytes.subarray(from, places[index]))
      const whole = read([bytes])
      expect(read(pieces)).toEqual(whole)
      expect(read([bytes], most)).toEqual(whole)
      expect(read(pieces, most)).toEqual(whole)
    }),
    { numRuns: 3000, seed: SEED },
  )
})

test('however a CONNECT is cut, it is found, with what came behind it', () => {
  const bytes = connect({ flags: 0xc6, rest: ['t', 'm'.repeat(300), 'u', 'p'] })
  const behind = Buffer.from('behind')
  for (let cut = 1; cut < bytes.length; cut++) {
    const reader = new FrameReader(LIMITS)
    expect(reader.first(bytes.subarray(0, cut))).toBeUndefined()
    const found = reader.first(Buffer.concat([bytes.subarray(cut), behind]))
    if (!found || 'fault' in found) throw new Error(`not found: ${found?.fault}`)
    expect(found.connect.bytes).toEqual(bytes)
    expect(found.rest).toEqual(behind)
  }
})
