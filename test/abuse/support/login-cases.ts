import { SQL } from './hostile.ts'
import { KIND_NAMES, type KindName, kindOf } from './logins.ts'
import { type Connect, MQTT_DOORS } from './peer.ts'

const REPORTS = 'victim~reports'
const LOOKALIKES = ['VICTIM', 'vict\u0456m', 'vic\u200btim', '\u202emitciv', 'victim ']
const WITH_TOPIC_LETTERS = ['victim/', '+', '#', '$SYS/x', 'victim/../victim']
const MEMBER_NAMES = ['__proto__', 'constructor', 'toString']
const ILL_FORMED = [
  Buffer.from('victim\u0000'),
  Buffer.from('victim\n'),
  Buffer.from('\u001b[2Jvictim'),
  Buffer.from([0x76, 0xff]),
  Buffer.from([0xed, 0xa0, 0x80]),
  Buffer.from([0xc0, 0xaf]),
]

/** A way to come in as somebody else. What it is answered: to a client, to a principal; whoever has no login gets what he always gets. */
interface LoginAttack {
  connects: Connect[]
  client: number
  principal: number
  /** Also to those without a login. */
  everybody?: number
}

const ids = (clientIds: Connect['clientId'][], client: number, principal: number): LoginAttack => ({
  connects: clientIds.map((clientId, index) => ({ clientId: clientId as string, clean: index % 2 === 0 })),
  client,
  principal,
})
const names = (usernames: string[], clientId?: string): LoginAttack => ({
  connects: usernames.map((username) => ({ username, clientId: clientId ?? username })),
  client: 4,
  principal: 4,
  everybody: 4,
})

const LOGIN_ATTACKS: Record<string, LoginAttack> = {
  'the id of a client that is online': ids(['victim', 'victim'], 5, 5),
  'the id of a client that is offline': ids(['neighbour'], 5, 5),
  "the id of a client's report connection": ids([REPORTS, REPORTS], 5, 5),
  "an id that only a client's report connection has": ids(['victim~', 'victim~more', 'neighbour~x~y'], 5, 5),
  "the id of another principal's connection": ids(['watcher', 'watcher'], 5, 5),
  'an id that looks like a client': ids(LOOKALIKES, 5, 0),
  'an id with the letters of topics': ids(WITH_TOPIC_LETTERS, 5, 0),
  'an id that every object has a member of': ids(MEMBER_NAMES, 5, 0),
  'an id with the letters of SQL': ids(SQL.slice(0, 5), 5, 0),
  'an id of thousands of letters': ids(['x'.repeat(3500)], 5, 0),
  'no id at all': { connects: [{ clientId: '' }], client: 5, principal: 0 },
  'an id that is no text': {
    connects: ILL_FORMED.map((clientId) => ({ clientId })),
    client: -1,
    principal: -1,
    everybody: -1,
  },
  'the user name of a client': names(['victim', 'neighbour']),
  'the user name of a client and its report connection': names(['victim'], REPORTS),
  'the user name of a principal': names(['admin'], 'watcher'),
  'a user name that looks like one': names([...LOOKALIKES, 'Admin', '\u0430dmin', 'admin ']),
  'a user name that every object has a member of': names(MEMBER_NAMES),
  'a user name with the letters of topics': names(WITH_TOPIC_LETTERS),
  'a user name with the letters of SQL': names(SQL.slice(0, 5)),
  'a user name that is no text': {
    connects: ILL_FORMED.map((username) => ({ username, clientId: 'x' })),
    client: -1,
    principal: -1,
    everybody: -1,
  },
}

/** Each kind at each door: each attack is a case of its own. */
export const LOGIN_ROUNDS = MQTT_DOORS.flatMap((door) => KIND_NAMES.map((kind) => ({ door, kind })))

/** The attacks of one round, each with its CONNECTs and the code that every one of them gets. */
export function loginAttacksOf(kind: KindName): Record<string, { connects: Connect[]; expected: number }> {
  const { mqtt, as } = kindOf(kind)
  const attacks = Object.entries(LOGIN_ATTACKS).map(([name, row]) => [
    name,
    { connects: row.connects, expected: row.everybody ?? (as === undefined ? mqtt : row[as]) },
  ])
  // What was once a login, or never: under its own name.
  if (mqtt !== 0) attacks.push(['a login that is none', { connects: [{}, { clean: false }], expected: mqtt }])
  return Object.fromEntries(attacks)
}
