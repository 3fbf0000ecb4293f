import { isUtf8 } from 'node:buffer'

export interface TopicLimits {
  topicBytes: number
  topicLevels: number
}

const HASH = 0x23
const PLUS = 0x2b
const SLASH = 0x2f

/** 1.5.3 leaves these to the receiver: no name needs them, and in a log or on a terminal they do harm. */
const UNWANTED = /[\p{Cc}\p{Noncharacter_Code_Point}]/u

/** Why the bytes are no string of MQTT; undefined if they are one. */
export function textFault(bytes: Buffer, from: number, to: number): string | undefined {
  // Printable ASCII, which nearly every name is, needs no second look.
  let at = from
  while (at < to && isPrintable(bytes[at] as number)) at++
  if (at === to) return undefined
  const text = bytes.subarray(at, to)
  if (text.includes(0)) return 'a string with U+0000 [MQTT-1.5.3-2]'
  if (!isUtf8(text)) return 'a string that is no UTF-8 [MQTT-1.5.3-1]'
  return UNWANTED.test(text.toString()) ? 'a string with a control or non-character (MQTT 1.5.3)' : undefined
}

const isPrintable = (byte: number): boolean => byte >= 0x20 && byte < 0x7f

/** Why the bytes are no name that can be published to. */
export function topicFault(bytes: Buffer, from: number, to: number, limits: TopicLimits): string | undefined {
  const fault = sizeFault(bytes, from, to, limits)
  if (fault) return fault
  for (let at = from; at < to; at++) {
    if (bytes[at] === HASH || bytes[at] === PLUS) return 'a wildcard in a topic name [MQTT-3.3.2-2]'
  }
  return textFault(bytes, from, to)
}

/** Why the bytes are no topic filter. */
export function filterFault(bytes: Buffer, from: number, to: number, limits: TopicLimits): string | undefined {
  const fault = sizeFault(bytes, from, to, limits)
  if (fault) return fault
  for (let at = from; at < to; at++) {
    const byte = bytes[at]
    if (byte !== HASH && byte !== PLUS) continue
    const first = at === from || bytes[at - 1] === SLASH
    const last = at === to - 1
    if (byte === HASH && !(first && last)) return '# beside something or before the end [MQTT-4.7.1-2]'
    if (byte === PLUS && !(first && (last || bytes[at + 1] === SLASH))) return '+ beside something [MQTT-4.7.1-3]'
  }
  return textFault(bytes, from, to)
}

function sizeFault(bytes: Buffer, from: number, to: number, limits: TopicLimits): string | undefined {
  if (from === to) return 'an empty topic [MQTT-4.7.3-1]'
  if (to - from > limits.topicBytes) return `a topic of more than ${limits.topicBytes} bytes`
  let levels = 1
  for (let at = from; at < to; at++) if (bytes[at] === SLASH) levels++
  return levels > limits.topicLevels ? `a topic of more than ${limits.topicLevels} levels` : undefined
}
