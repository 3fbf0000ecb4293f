import { connect, hex, packet, u16 } from './wire.ts'

/**
 * One normative statement of MQTT 3.1.1 (or of its text, where it has no number): what a client sends, and what it must see.
 * `answer` is compared byte by byte; `closed` is the end of the connection, otherwise a PINGREQ behind it is answered.
 */
export interface Vector {
  clause: string
  name: string
  send: Buffer
  answer?: Buffer
  closed?: boolean
}

const nothing: Buffer = Buffer.alloc(0)
const ID = u16(0x1234)
const ill = (bytes: string): Buffer => hex(bytes)

/** Strings that are none, or that nobody needs (1.5.3). */
const BAD_TEXTS: [clause: string, name: string, bytes: Buffer][] = [
  ['MQTT-1.5.3-1', 'a high surrogate U+D800', ill('61 EDA080')],
  ['MQTT-1.5.3-1', 'a low surrogate U+DFFF', ill('61 EDBFBF')],
  ['MQTT-1.5.3-1', 'a pair of surrogates', ill('EDA080 EDB080')],
  ['MQTT-1.5.3-1', 'an overlong slash', ill('61 C0AF')],
  ['MQTT-1.5.3-1', 'a lone continuation byte', ill('61 80')],
  ['MQTT-1.5.3-1', 'a sequence that is cut short', ill('61 E282')],
  ['MQTT-1.5.3-1', 'a code point above U+10FFFF', ill('61 F4908080')],
  ['MQTT-1.5.3-1', 'byte FF', ill('61 FF')],
  ['MQTT-1.5.3-2', 'U+0000', ill('61 00 62')],
  ['1.5.3', 'U+0001', ill('61 01 62')],
  ['1.5.3', 'U+001F', ill('61 1F')],
  ['1.5.3', 'U+007F', ill('7F 61')],
  ['1.5.3', 'U+009F', ill('61 C29F')],
  ['1.5.3', 'U+FFFF', ill('61 EFBFBF')],
  ['1.5.3', 'U+1FFFE', ill('61 F09FBFBE')],
  ['1.5.3', 'U+FDD0', ill('61 EFB790')],
]

const goodTexts: [clause: string, name: string, value: string][] = [
  ['1.5.3.1', 'U+2A6D4', 'A\u{2a6d4}'],
  ['MQTT-1.5.3-3', 'U+FEFF, which is part of the string', '\ufeffa'],
  ['1.5.3', 'U+FFFD', 'a\ufffd'],
  ['1.5.3', 'spaces and letters of three bytes', 'a b 온도'],
]

const FILTERS_THAT_ARE_NONE: [clause: string, filter: string][] = [
  ['MQTT-4.7.3-1', ''],
  ['MQTT-4.7.1-2', 'sport/tennis#'],
  ['MQTT-4.7.1-2', 'sport/tennis/#/ranking'],
  ['MQTT-4.7.1-2', '#/'],
  ['MQTT-4.7.1-2', '##'],
  ['MQTT-4.7.1-2', 'a#'],
  ['MQTT-4.7.1-2', '#a'],
  ['MQTT-4.7.1-2', '+#'],
  ['MQTT-4.7.1-3', 'sport+'],
  ['MQTT-4.7.1-3', '+sport'],
  ['MQTT-4.7.1-3', 'a+'],
  ['MQTT-4.7.1-3', '+a'],
  ['MQTT-4.7.1-3', '++'],
  ['MQTT-4.7.1-3', 'a/b+/c'],
  ['MQTT-4.7.1-3', 'a/+b/c'],
]

const publish = (first: number, topic: string | Buffer, ...rest: Buffer[]): Buffer =>
  packet(first, text(topic), ...rest, Buffer.from('payload'))
const subscribe = (filter: string | Buffer, options = 0): Buffer => packet(0x82, ID, text(filter), options)
const unsubscribe = (filter: string | Buffer): Buffer => packet(0xa2, ID, text(filter))
const text = (value: string | Buffer): Buffer => {
  const bytes = Buffer.from(value as string)
  return Buffer.concat([u16(bytes.length), bytes])
}

/** The fixed header's flags, each wrong value in turn. */
const wrongFlags = (type: number, right: number, body: Buffer, clause: string): Vector[] =>
  [...Array(16).keys()]
    .filter((flags) => flags !== right)
    .map((flags) => ({
      clause,
      name: `type ${type} with flags ${flags.toString(2).padStart(4, '0')}`,
      send: packet((type << 4) | flags, body),
      closed: true,
    }))

const closed = (clause: string, name: string, send: Buffer): Vector => ({ clause, name, send, closed: true })
const alive = (clause: string, name: string, send: Buffer, answer: Buffer = nothing): Vector => ({
  clause,
  name,
  send,
  answer,
})

/** Sent as the first bytes of a connection; whoever asks, a broker ends it. */
export const FIRST_PACKETS: Vector[] = [
  ...[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0].map((type) =>
    closed('MQTT-3.1.0-1', `a first packet of type ${type}`, packet(type << 4, hex('00 01 61 00'))),
  ),
  closed('MQTT-3.1.0-1', 'a first PINGREQ', hex('C0 00')),
  closed('MQTT-3.1.0-1', 'a first PUBLISH', publish(0x30, 'topic')),
  ...wrongFlags(1, 0, connect().subarray(2), 'MQTT-2.2.2-2'),
  closed('2.2.3', 'a remaining length of five bytes', hex('10 FF FF FF FF 7F 00')),
  closed('2.2.3', 'a CONNECT that announces 256 MiB', hex('10 FF FF FF 7F')),
  closed('MQTT-3.1.2-1', 'protocol name mqtt', connect({ name: 'mqtt' })),
  closed('MQTT-3.1.2-1', 'protocol name MQT', connect({ name: 'MQT' })),
  closed('MQTT-3.1.2-1', 'protocol name MQTTX', connect({ name: 'MQTTX' })),
  closed('MQTT-3.1.2-1', 'no protocol name', connect({ name: '' })),
  closed('MQTT-3.1.2-1', 'HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')),
  ...[0, 1, 2, 3, 5, 6, 127].map((level) => ({
    clause: 'MQTT-3.1.2-2',
    name: `protocol level ${level}`,
    send: connect({ level }),
    answer: hex('20 02 00 01'),
    closed: true,
  })),
  closed('MQTT-3.1.2-3', 'the reserved flag', connect({ flags: 0x03 })),
  closed('MQTT-3.1.2-9', 'a will flag without a will', connect({ flags: 0x06 })),
  closed('MQTT-3.1.2-9', 'a will topic without a message', connect({ flags: 0x06, rest: ['t'] })),
  closed('MQTT-3.1.2-11', 'a will without its flag', connect({ rest: ['t', 'm'] })),
  closed('MQTT-3.1.2-13', 'will QoS 1 without a will', connect({ flags: 0x0a })),
  closed('MQTT-3.1.2-13', 'will QoS 2 without a will', connect({ flags: 0x12 })),
  closed('MQTT-3.1.2-14', 'will QoS 3', connect({ flags: 0x1e, rest: ['t', 'm'] })),
  closed('MQTT-3.1.2-14', 'will QoS 3 without a will', connect({ flags: 0x1a })),
  closed('MQTT-3.1.2-15', 'will retain without a will', connect({ flags: 0x22 })),
  closed('MQTT-3.1.2-18', 'a user name without its flag', connect({ rest: ['u'] })),
  closed('MQTT-3.1.2-19', 'a user name flag without one', connect({ flags: 0x82 })),
  closed('MQTT-3.1.2-20', 'a password without its flag', connect({ flags: 0x82, rest: ['u', 'p'] })),
  closed('MQTT-3.1.2-21', 'a password flag without one', connect({ flags: 0xc2, rest: ['u'] })),
  closed('MQTT-3.1.2-22', 'a password without a user name', connect({ flags: 0x42, rest: ['p'] })),
  closed('MQTT-3.1.3-1', 'fields out of order', connect({ flags: 0xc6, rest: ['', 'u', 'p'] })),
  closed('MQTT-3.1.3-3', 'no client id', packet(0x10, 'MQTT', 4, 2, u16(60))),
  closed('MQTT-3.1.3-3', 'half of a client id', packet(0x10, 'MQTT', 4, 2, u16(60), u16(5), Buffer.from('ab'))),
  closed('MQTT-3.1.4-1', 'nothing behind the protocol name', packet(0x10, 'MQTT')),
  closed('MQTT-3.1.4-1', 'nothing behind the level', packet(0x10, 'MQTT', 4)),
  closed('MQTT-3.1.4-1', 'half of a keepalive', packet(0x10, 'MQTT', 4, 2, 0)),
  closed('MQTT-3.1.4-1', 'an empty CONNECT', packet(0x10)),
  closed('MQTT-3.1.4-1', 'a byte behind the last field', connect({ rest: [0] })),
  ...BAD_TEXTS.flatMap(([clause, name, bytes]) => [
    closed(`${clause} MQTT-3.1.3-4`, `a client id with ${name}`, connect({ clientId: bytes })),
    closed(`${clause} MQTT-3.1.3-10`, `a will topic with ${name}`, connect({ flags: 0x06, rest: [text(bytes), 'm'] })),
    closed(`${clause} MQTT-3.1.3-11`, `a user name with ${name}`, connect({ flags: 0x82, rest: [text(bytes)] })),
  ]),
  closed('MQTT-4.7.3-1', 'an empty will topic', connect({ flags: 0x06, rest: ['', 'm'] })),
  closed('MQTT-3.3.2-2', 'a will topic with #', connect({ flags: 0x06, rest: ['a/#', 'm'] })),
  closed('MQTT-3.3.2-2', 'a will topic with +', connect({ flags: 0x06, rest: ['a/+', 'm'] })),
  {
    clause: 'MQTT-3.1.3-8',
    name: 'an empty client id without clean session',
    send: connect({ clientId: '', flags: 0 }),
    answer: hex('20 02 00 02'),
    closed: true,
  },
]

/** Sent in a session; whoever asks, a broker ends it, or answers just this. */
export const IN_A_SESSION: Vector[] = [
  closed('MQTT-3.1.0-2', 'a second CONNECT', connect()),
  ...[0, 2, 9, 11, 13, 15].map((type) =>
    closed('MQTT-4.8.0-1', `type ${type}, which is not for clients to send`, packet(type << 4, hex('00 01 00'))),
  ),
  ...[0, 15].map((type) => closed('2.2.1', `the forbidden type ${type}, empty`, packet(type << 4))),
  closed('2.2.3', 'a remaining length of five bytes', hex('30 FF FF FF FF 7F')),
  closed('2.2.3', 'a remaining length of six bytes', hex('C0 80 80 80 80 80 00')),
  closed('MQTT-4.8.0-1', 'a PUBLISH that announces 256 MiB', hex('30 FF FF FF 7F')),

  closed('MQTT-3.3.1-2', 'PUBLISH at QoS 0 with DUP', publish(0x38, 'topic')),
  closed('MQTT-3.3.1-4', 'PUBLISH at QoS 3', publish(0x36, 'topic', ID)),
  closed('MQTT-3.3.1-4', 'PUBLISH at QoS 3 with DUP and RETAIN', publish(0x3f, 'topic', ID)),
  closed('MQTT-3.3.2-1', 'PUBLISH without a topic', packet(0x30)),
  closed('MQTT-3.3.2-1', 'PUBLISH with half a topic length', packet(0x30, 0)),
  closed('MQTT-3.3.2-1', 'PUBLISH with half a topic', packet(0x30, u16(9), Buffer.from('topic'))),
  closed('MQTT-4.7.3-1', 'PUBLISH to an empty topic', publish(0x30, '')),
  closed('MQTT-3.3.2-2', 'PUBLISH to #', publish(0x30, '#')),
  closed('MQTT-3.3.2-2', 'PUBLISH to a/#', publish(0x30, 'a/#')),
  closed('MQTT-3.3.2-2', 'PUBLISH to a topic with + in a word', publish(0x30, 'a+b')),
  closed('MQTT-2.3.1-1', 'PUBLISH at QoS 1 with identifier 0', publish(0x32, 'topic', u16(0))),
  closed('MQTT-2.3.1-1', 'PUBLISH at QoS 2 with identifier 0', publish(0x34, 'topic', u16(0))),
  closed('MQTT-2.3.1-1', 'PUBLISH at QoS 1 without identifier', packet(0x32, 'topic')),
  closed('MQTT-2.3.1-1', 'PUBLISH at QoS 1 with half an identifier', packet(0x32, 'topic', 1)),
  ...BAD_TEXTS.flatMap(([clause, name, bytes]) => [
    closed(`${clause} MQTT-3.3.2-1`, `PUBLISH to a topic with ${name}`, publish(0x30, bytes)),
    closed(`${clause} MQTT-3.8.3-1`, `SUBSCRIBE to a filter with ${name}`, subscribe(bytes)),
    closed(`${clause} MQTT-3.10.3-1`, `UNSUBSCRIBE from a filter with ${name}`, unsubscribe(bytes)),
  ]),

  ...[
    ['PUBACK', 4, 0],
    ['PUBREC', 5, 0],
    ['PUBREL', 6, 2],
    ['PUBCOMP', 7, 0],
  ].flatMap(([name, type, flags]) => {
    const first = ((type as number) << 4) | (flags as number)
    return [
      ...wrongFlags(type as number, flags as number, u16(1), type === 6 ? 'MQTT-3.6.1-1' : 'MQTT-2.2.2-2'),
      closed('MQTT-2.3.1-1', `${name} of identifier 0`, packet(first, u16(0))),
      closed('3.4', `${name} that is empty`, packet(first)),
      closed('3.4', `${name} of one byte`, packet(first, 1)),
      closed('3.4', `${name} of three bytes`, packet(first, u16(1), 0)),
    ]
  }),
  alive('MQTT-4.8.0-1', 'PUBACK of nothing', packet(0x40, u16(1))),
  alive('MQTT-4.8.0-1', 'PUBCOMP of nothing', packet(0x70, u16(1))),

  ...wrongFlags(8, 2, subscribe('p').subarray(2), 'MQTT-3.8.1-1'),
  closed('MQTT-3.8.3-3', 'SUBSCRIBE without filters', packet(0x82, ID)),
  closed('MQTT-3.8.3-3', 'SUBSCRIBE that is empty', packet(0x82)),
  closed('MQTT-3.8.3-3', 'SUBSCRIBE of one byte', packet(0x82, 1)),
  closed('MQTT-3.8.3-3', 'SUBSCRIBE without a QoS', packet(0x82, ID, 'p')),
  closed('MQTT-3.8.3-3', 'SUBSCRIBE with half a filter', packet(0x82, ID, u16(5), Buffer.from('ab'), 0)),
  closed('MQTT-3.8.3-3', 'SUBSCRIBE with a byte behind the last filter', packet(0x82, ID, 'p', 0, 0)),
  ...[3, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff].map((options) =>
    closed('MQTT-3-8.3-4', `SUBSCRIBE with QoS byte 0x${options.toString(16)}`, subscribe('p', options)),
  ),
  closed('MQTT-2.3.1-1', 'SUBSCRIBE with identifier 0', packet(0x82, u16(0), 'p', 0)),
  ...FILTERS_THAT_ARE_NONE.flatMap(([clause, filter]) => [
    closed(clause, `SUBSCRIBE to "${filter}"`, subscribe(filter)),
    closed(clause, `UNSUBSCRIBE from "${filter}"`, unsubscribe(filter)),
  ]),
  closed('MQTT-4.7.3-1', 'SUBSCRIBE whose second filter is empty', packet(0x82, ID, 'p', 0, '', 0)),

  ...wrongFlags(10, 2, unsubscribe('p').subarray(2), 'MQTT-3.10.1-1'),
  closed('MQTT-3.10.3-2', 'UNSUBSCRIBE without filters', packet(0xa2, ID)),
  closed('MQTT-3.10.3-2', 'UNSUBSCRIBE that is empty', packet(0xa2)),
  closed('MQTT-3.10.3-2', 'UNSUBSCRIBE of one byte', packet(0xa2, 1)),
  closed('MQTT-3.10.3-1', 'UNSUBSCRIBE with half a filter', packet(0xa2, ID, u16(5), Buffer.from('ab'))),
  closed('MQTT-2.3.1-1', 'UNSUBSCRIBE with identifier 0', packet(0xa2, u16(0), 'p')),
  closed('MQTT-4.7.3-1', 'UNSUBSCRIBE whose second filter is empty', packet(0xa2, ID, 'p', '')),
  alive('MQTT-3.10.4-5', 'UNSUBSCRIBE from what was not subscribed', unsubscribe('p'), packet(0xb0, ID)),
  alive('MQTT-3.10.4-6', 'UNSUBSCRIBE from two', packet(0xa2, ID, 'p', 'q'), packet(0xb0, ID)),

  alive('MQTT-3.12.4-1', 'PINGREQ', hex('C0 00'), hex('D0 00')),
  alive('MQTT-3.12.4-1', 'three PINGREQ at once', hex('C0 00 C0 00 C0 00'), hex('D0 00 D0 00 D0 00')),
  ...wrongFlags(12, 0, nothing, 'MQTT-2.2.2-2'),
  closed('3.12', 'PINGREQ with a body', packet(0xc0, 0)),
  closed('MQTT-3.14.4-1', 'DISCONNECT', hex('E0 00')),
  closed('MQTT-3.14.4-1', 'DISCONNECT and more behind it', hex('E0 00 C0 00 FF FF')),
  ...wrongFlags(14, 0, nothing, 'MQTT-3.14.1-1'),
  closed('3.14', 'DISCONNECT with a body', packet(0xe0, 0)),
]

/** What only a broker answers so that lets anybody do anything. */
export const FOR_ANYBODY: Vector[] = [
  alive('3.3', 'PUBLISH at QoS 0', publish(0x30, 'topic')),
  alive('3.3', 'PUBLISH at QoS 0, retained', publish(0x31, 'vectors/retained')),
  alive('MQTT-3.3.1-10', 'PUBLISH that removes what is retained', packet(0x31, 'vectors/retained')),
  alive('MQTT-3.3.4-1', 'PUBLISH at QoS 1', publish(0x32, 'topic', ID), packet(0x40, ID)),
  alive('MQTT-3.3.4-1', 'PUBLISH at QoS 1 with DUP', publish(0x3a, 'topic', ID), packet(0x40, ID)),
  alive('MQTT-3.3.4-1', 'PUBLISH at QoS 2', publish(0x34, 'topic', ID), packet(0x50, ID)),
  alive('3.3', 'PUBLISH with an empty payload', packet(0x32, 'topic', ID), packet(0x40, ID)),
  alive('MQTT-3.6.4-1', 'PUBREL of nothing', packet(0x62, u16(1)), packet(0x70, u16(1))),
  alive('MQTT-4.3.3-1', 'PUBREC of nothing', packet(0x50, u16(1)), packet(0x62, u16(1))),
  ...goodTexts.map(([clause, name, value]) =>
    alive(clause, `PUBLISH to a topic with ${name}`, publish(0x32, value, ID), packet(0x40, ID)),
  ),
  ...[0, 1, 2].map((qos) =>
    alive('MQTT-3.8.4-1', `SUBSCRIBE at QoS ${qos}`, subscribe('vectors/p', qos), packet(0x90, ID, qos)),
  ),
  alive(
    'MQTT-3.8.4-5',
    'SUBSCRIBE to three',
    packet(0x82, ID, 'vectors/a', 2, 'vectors/b', 0, 'vectors/c', 1),
    packet(0x90, ID, 2, 0, 1),
  ),
  alive(
    'MQTT-3.8.4-4',
    'SUBSCRIBE to one filter twice is as two',
    packet(0x82, ID, 'vectors/a', 0, 'vectors/a', 1),
    packet(0x90, ID, 0, 1),
  ),
  ...['/', '//', 'a//b', '+', '#', '+/+', '/+', '+/#', 'a/+/b', '/#', ' '].map((filter) =>
    alive(
      'MQTT-4.7.1-1',
      `SUBSCRIBE to "${filter}"`,
      packet(0x82, ID, filter, 0, 'nosubscribe', 0),
      packet(0x90, ID, 0, 0x80),
    ),
  ),
  alive('MQTT-3.9.3-2', 'SUBSCRIBE to what is refused', subscribe('test/nosubscribe', 2), packet(0x90, ID, 0x80)),
]
