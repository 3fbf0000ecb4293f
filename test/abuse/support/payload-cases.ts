import { MQTT_DOORS } from './peer.ts'

const deep = (levels: number): string => `${'['.repeat(levels)}${']'.repeat(levels)}`

/** What is no message on any topic. */
const NO_DOCUMENTS: Record<string, string | Buffer> = {
  nothing: '',
  text: 'online',
  'half a document': '{"state":"poison"',
  'two documents': '{"state":"poison"}{}',
  'what is no UTF-8': Buffer.concat([
    Buffer.from('{"id":"poison","status":"completed","state":"'),
    Buffer.from([0xff, 0xc3]),
    Buffer.from('"}'),
  ]),
  'an array': '[]',
  'a number': '5',
  null: 'null',
  'an empty object': '{}',
  'U+0000': '{"id":"poison","status":"completed","state":"a\\u0000","progress":{"message":"\\u0000"}}',
  'half a character': '{"id":"poison","status":"completed","state":"poison","x":"\\ud800"}',
  'a number out of range': '{"id":"poison","status":"completed","state":"poison","x":1e400}',
  'a prototype': '{"id":"poison","status":"completed","state":"poison","__proto__":{"polluted":true}}',
  'a prototype further in': '{"id":"poison","status":"completed","state":"poison","x":{"__proto__":{"polluted":true}}}',
  '65 levels': `{"id":"poison","status":"completed","state":"poison","x":${deep(65)}}`,
  '10,000 levels': `{"id":"poison","status":"completed","state":"poison","x":${deep(10_000)}}`,
  'more than a payload may have': `{"id":"poison","status":"completed","state":"poison","x":"${'x'.repeat(262_144)}"}`,
}

/** What is wrong on one topic only. */
const OF_TOPIC = {
  status: {
    'a state that is none': '{"state":5}',
    'a state that every object has a member of': '{"state":{"toString":1}}',
    'a state that is too long': `{"state":"${'x'.repeat(65)}"}`,
    'a journal that is none': '{"state":"poison","journalId":["victims-journal"]}',
  },
  report: {
    'a status that is none': '{"status":"done"}',
    'a status that only the server gives': '{"status":"pending"}',
    'a status that every object has a member of': '{"status":"constructor"}',
    'an attempt that is none': '{"status":"completed","attempt":0}',
    "another's running command, completed": '{"status":"completed","attempt":1}',
    "another's running command, failed": '{"status":"failed","error":{"code":"X","message":"x"}}',
    "another's running command, nobody knows": '{"status":"outcome_unknown"}',
    "another's running command, with the letters of SQL":
      '{"status":"completed","result":"\'; drop table executions; --"}',
  },
  event: {
    'an id that is none': '{"id":5}',
    'an id that every object has a member of': '{"id":{"constructor":1}}',
    'an id that is too long': `{"id":"${'x'.repeat(201)}"}`,
  },
} as const

export type PayloadTopic = keyof typeof OF_TOPIC

export const payloadsOf = (topic: PayloadTopic): Record<string, string | Buffer> => ({
  ...NO_DOCUMENTS,
  ...OF_TOPIC[topic],
})
export const payloadAttacksOf = (topic: PayloadTopic): string[] => Object.keys(payloadsOf(topic))

/** A report connection has no status. */
export const PAYLOAD_ROUNDS = MQTT_DOORS.flatMap((door) =>
  (['status', 'report', 'event'] as const).flatMap((topic) =>
    (topic === 'status' ? (['itself'] as const) : (['itself', 'its report connection'] as const)).flatMap((as) =>
      [false, true].map((retain) => ({
        door,
        topic,
        as,
        retain,
        who: `a client as ${as}, ${retain ? 'to be retained' : 'in passing'}`,
      })),
    ),
  ),
)
