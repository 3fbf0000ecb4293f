import { Refusal } from '../refusal.ts'
import { endOfField, type PacketLimits } from './packets.ts'
import { textFault, topicFault } from './text.ts'

/** What a CONNECT says of the one who sends it. */
export interface ConnectPacket {
  clientId: string
  username: string | undefined
  password: string | undefined
  willTopic: string | undefined
}

/** A fault ends the connection without a word [MQTT-3.1.4-1]; a refusal is answered. */
export type ConnectVerdict =
  | { connect: ConnectPacket }
  | { fault: string }
  | ({ refusal: Refusal } & Partial<Pick<ConnectPacket, 'clientId' | 'username'>>)

const LEVELS: Record<string, number | undefined> = { MQTT: 4, MQIsdp: 3 }
/** A bridge sets the highest bit of the level. */
const BRIDGE = 0x80
const FLAG = { reserved: 0x01, clean: 0x02, will: 0x04, willRetain: 0x20, password: 0x40, username: 0x80 } as const
/** MQTT 3.1 wants 1 to 23 characters. */
const MAX_ID_OF_LEVEL_3 = 23

/** Reads the variable header and payload of a whole CONNECT: `bytes` from `from` to `to`. */
export function readConnect(bytes: Buffer, from: number, to: number, limits: PacketLimits): ConnectVerdict {
  const name = endOfField(bytes, from, to)
  if (name === undefined || name + 4 > to) return { fault: 'CONNECT that is cut short' }
  const expected = LEVELS[bytes.toString('latin1', from + 2, name)]
  if (expected === undefined) return { fault: 'CONNECT with an unknown protocol name [MQTT-3.1.2-1]' }
  const level = (bytes[name] as number) & ~BRIDGE
  const flags = bytes[name + 1] as number
  if (level !== expected) return refuseLevel(level, readFields(bytes, name + 4, to, { flags, level, limits }))
  const fault = flagsFault(flags)
  if (fault) return { fault: `CONNECT: ${fault}` }
  const fields = readFields(bytes, name + 4, to, { flags, level, limits })
  if ('fault' in fields) return { fault: `CONNECT: ${fields.fault}` }
  const { clientId, username } = fields.connect
  const reason = idFault(clientId, level, flags)
  return reason ? { refusal: new Refusal(2, reason), clientId, username } : fields
}

/** The refusal names who it is, where that can be read: a device of ours may have been set up wrong. */
function refuseLevel(level: number, fields: { connect: ConnectPacket } | { fault: string }): ConnectVerdict {
  if (level !== 5) return { refusal: new Refusal(1, `protocol level ${level} [MQTT-3.1.2-2]`) }
  const refusal = new Refusal(1, 'it speaks MQTT 5; choose 3.1.1')
  if ('fault' in fields) return { refusal }
  const { clientId, username } = fields.connect
  return { refusal, clientId, username }
}

function idFault(clientId: string, level: number, flags: number): string | undefined {
  if (clientId === '' && (level === 3 || !(flags & FLAG.clean)))
    return 'an empty client id needs clean session [MQTT-3.1.3-8]'
  if (level === 3 && clientId.length > MAX_ID_OF_LEVEL_3)
    return `MQTT 3.1 with a client id of more than ${MAX_ID_OF_LEVEL_3} characters`
  return undefined
}

function flagsFault(flags: number): string | undefined {
  if (flags & FLAG.reserved) return 'the reserved flag is set [MQTT-3.1.2-3]'
  if (flags & FLAG.password && !(flags & FLAG.username)) return 'a password without a user name [MQTT-3.1.2-22]'
  const willQos = (flags >> 3) & 3
  if (flags & FLAG.will) return willQos === 3 ? 'will QoS 3 [MQTT-3.1.2-14]' : undefined
  if (willQos > 0) return 'will QoS without a will [MQTT-3.1.2-13]'
  if (flags & FLAG.willRetain) return 'will retain without a will [MQTT-3.1.2-15]'
  return undefined
}

function readFields(
  bytes: Buffer,
  start: number,
  to: number,
  { flags, level, limits }: { flags: number; level: number; limits: PacketLimits },
): { connect: ConnectPacket } | { fault: string } {
  let at = start
  let fault: string | undefined
  /** The next field as text, judged by `judge`; undefined when it is not there. */
  const field = (present: boolean, judge?: typeof textFault): string | undefined => {
    if (fault || !present) return undefined
    const end = endOfField(bytes, at, to)
    if (end === undefined) {
      fault = 'a field is missing or cut short [MQTT-3.1.3-1]'
      return undefined
    }
    fault = judge?.(bytes, at + 2, end)
    const text = bytes.toString('utf8', at + 2, end)
    at = end
    return text
  }
  /** MQTT 5 has properties before the client id and the will; up to 127 bytes of them are passed over. */
  const properties = (present: boolean): void => {
    if (fault || !present || level !== 5) return
    at += 1 + (bytes[at] ?? 0)
    if (at > to) fault = 'properties that are cut short'
  }
  const has = (flag: number): boolean => (flags & flag) !== 0
  properties(true)
  const clientId = field(true, textFault) ?? ''
  properties(has(FLAG.will))
  const willTopic = field(has(FLAG.will), (...range) => topicFault(...range, limits))
  field(has(FLAG.will))
  const username = field(has(FLAG.username), textFault)
  const password = field(has(FLAG.password))
  if (!fault && at !== to) fault = 'bytes after the last field'
  return fault ? { fault } : { connect: { clientId, username, password, willTopic } }
}
