import { filterFault, type TopicLimits, topicFault } from './text.ts'

export interface PacketLimits extends TopicLimits {
  /** Of a whole CONNECT, and of any other whole packet. */
  connectBytes: number
  packetBytes: number
  /** In one SUBSCRIBE or UNSUBSCRIBE. */
  filters: number
}

/** Judges the body of a packet: `from` is where its variable header begins, `to` where it ends, `flags` the low bits of byte 1. */
type Judge = (bytes: Buffer, from: number, to: number, flags: number, limits: PacketLimits) => string | undefined

interface Rule {
  /** Low bits of byte 1 [MQTT-2.2.2-2]; undefined where they mean something. */
  flags?: number
  /** Remaining length, where there is only one. */
  length?: number
  judge?: Judge
}

export const CONNECT = 1
export const DISCONNECT = 14

/** What a client may send [MQTT-2.2.2-1]. A type that is not here is reserved, or the server's to send. */
const RULES: Record<number, Rule | undefined> = {
  [CONNECT]: { flags: 0 },
  3: { judge: publish },
  4: { flags: 0, length: 2, judge: acknowledgement },
  5: { flags: 0, length: 2, judge: acknowledgement },
  6: { flags: 2, length: 2, judge: acknowledgement },
  7: { flags: 0, length: 2, judge: acknowledgement },
  8: { flags: 2, judge: subscribe },
  10: { flags: 2, judge: unsubscribe },
  12: { flags: 0, length: 0 },
  [DISCONNECT]: { flags: 0, length: 0 },
}

/** Why a packet with this fixed header cannot be taken, before any of its body is waited for. */
export function headerFault(first: number, length: number, size: number, limits: PacketLimits): string | undefined {
  const type = first >> 4
  const rule = RULES[type]
  if (!rule) return `a packet of type ${type} from a client`
  if (rule.flags !== undefined && rule.flags !== (first & 0x0f)) return 'wrong flags in the fixed header [MQTT-2.2.2-2]'
  if (rule.length !== undefined && rule.length !== length) return `a packet of type ${type} with ${length} bytes`
  const most = type === CONNECT ? limits.connectBytes : limits.packetBytes
  return size > most ? `a packet of type ${type} with ${size} bytes, at most ${most} are taken` : undefined
}

/** Why the body of a packet other than CONNECT is not well-formed. */
export const bodyFault = (first: number, bytes: Buffer, from: number, to: number, limits: PacketLimits) =>
  RULES[first >> 4]?.judge?.(bytes, from, to, first & 0x0f, limits)

function publish(bytes: Buffer, from: number, to: number, flags: number, limits: PacketLimits): string | undefined {
  const qos = (flags >> 1) & 3
  if (qos === 3) return 'PUBLISH at QoS 3 [MQTT-3.3.1-4]'
  if (qos === 0 && flags & 8) return 'PUBLISH at QoS 0 with DUP [MQTT-3.3.1-2]'
  const end = endOfField(bytes, from, to)
  if (end === undefined || (qos > 0 && end + 2 > to)) return 'PUBLISH that is cut short'
  const fault = topicFault(bytes, from + 2, end, limits)
  if (fault) return `PUBLISH: ${fault}`
  return qos > 0 ? identifierFault(bytes, end) : undefined
}

function acknowledgement(bytes: Buffer, from: number): string | undefined {
  return identifierFault(bytes, from)
}

function subscribe(bytes: Buffer, from: number, to: number, _flags: number, limits: PacketLimits): string | undefined {
  return filtersFault('SUBSCRIBE', bytes, from, to, limits, (at) => {
    if (at >= to) return 'cut short'
    return (bytes[at] as number) > 2 ? 'QoS above 2 or reserved bits [MQTT-3-8.3-4]' : undefined
  })
}

function unsubscribe(bytes: Buffer, from: number, to: number, _flags: number, limits: PacketLimits) {
  return filtersFault('UNSUBSCRIBE', bytes, from, to, limits)
}

/** An identifier and at least one filter [MQTT-3.8.3-3] [MQTT-3.10.3-2]; `judgeOptions` looks at the byte after each. */
function filtersFault(
  name: string,
  bytes: Buffer,
  from: number,
  to: number,
  limits: PacketLimits,
  judgeOptions?: (at: number) => string | undefined,
): string | undefined {
  if (from + 2 >= to) return `${name} without a filter [MQTT-3.8.3-3] [MQTT-3.10.3-2]`
  let at = from + 2
  for (let count = 1; at < to; count++) {
    if (count > limits.filters) return `${name} of more than ${limits.filters} filters`
    const end = endOfField(bytes, at, to)
    if (end === undefined) return `${name} that is cut short`
    const fault = filterFault(bytes, at + 2, end, limits) ?? judgeOptions?.(end)
    if (fault) return `${name}: ${fault}`
    at = judgeOptions ? end + 1 : end
  }
  return identifierFault(bytes, from)
}

const identifierFault = (bytes: Buffer, at: number): string | undefined =>
  bytes.readUInt16BE(at) === 0 ? 'a packet identifier of 0 [MQTT-2.3.1-1]' : undefined

/** Where a field with two bytes of length ends, undefined if that is beyond `to`. */
export function endOfField(bytes: Buffer, at: number, to: number): number | undefined {
  if (at + 2 > to) return undefined
  const end = at + 2 + bytes.readUInt16BE(at)
  return end > to ? undefined : end
}
