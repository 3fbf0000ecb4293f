import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Role } from '../../schemas/principals.ts'
import { buildTopic, TOPICS, type TopicName } from '../../schemas/topics.ts'
import { connectDevice, type DeviceOptions, ROOT } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { client, fresh, principal } from './support/principals.ts'

const KINDS = ['client', 'report', ...Role.options] as const
type Kind = (typeof KINDS)[number]
const PRINCIPALS: readonly Kind[] = Role.options

/** Who may do what with each topic, as far as it is its own; whatever is another's only principals may see. */
const TABLE: Record<TopicName, { publish: readonly Kind[]; subscribe: readonly Kind[] }> = {
  clientCommands: { publish: [], subscribe: ['client', ...PRINCIPALS] },
  zoneCommands: { publish: [], subscribe: ['client', ...PRINCIPALS] },
  broadcastCommands: { publish: [], subscribe: ['client', ...PRINCIPALS] },
  clientConfig: { publish: [], subscribe: ['client', ...PRINCIPALS] },
  clientReplies: { publish: [], subscribe: ['client', ...PRINCIPALS] },
  clientStatus: { publish: ['client'], subscribe: PRINCIPALS },
  commandStatus: { publish: ['client', 'report'], subscribe: PRINCIPALS },
  clientEvent: { publish: ['client', 'report'], subscribe: PRINCIPALS },
}
/** Asked for at QoS 0 by a client, they are refused: nothing could be acknowledged. */
const NEED_QOS_1: readonly string[] = ['clientCommands', 'zoneCommands', 'broadcastCommands']

const NAMES = Object.keys(TOPICS) as TopicName[]
const rest = { commandId: '0198c0de-0000-7000-8000-000000000000', type: 'scan' }
const OWN = { clientId: 'me', zone: 'A', ...rest }
const OTHER = { clientId: 'them', zone: 'B', ...rest }

/** Each topic as its own and, where it names somebody, as another's. */
const CASES = NAMES.flatMap((name) => {
  const own = buildTopic(ROOT, name, OWN)
  const other = buildTopic(ROOT, name, OTHER)
  return [{ name, whose: 'own', topic: own }, ...(other === own ? [] : [{ name, whose: "another's", topic: other }])]
})

/** Every way to put wildcards for the levels of a topic: `+` for any of them, `#` from any of them on. */
function wildcardsOf(topic: string): string[] {
  const levels = topic.split('/')
  const single = levels.map((_, at) => levels.map((level, index) => (index === at ? '+' : level)).join('/'))
  const open = levels.map((_, at) => [...levels.slice(0, at), '#'].join('/'))
  const both = levels.slice(1).map((_, at) => [...levels.slice(0, at), '+', '#'].join('/'))
  return [...single, ...open, ...both, `${topic}/#`, levels.map(() => '+').join('/')]
}
const WILDCARDS = [...new Set(CASES.flatMap(({ topic }) => wildcardsOf(topic)))]
const ELSEWHERE = ['$SYS/#', '$SYS/broker/clients', ROOT, `${ROOT}x/clients`, 'x', `/${ROOT}/#`]
const SHARED = [...CASES.map(({ topic }) => topic), `${ROOT}/#`].map((filter) => `$share/group/${filter}`)

let server: TestServer
const logins = {} as Record<Kind, (id: string) => DeviceOptions>

beforeAll(async () => {
  server = await startServer()
  const key = await client(server, 'me', ['A'])
  await client(server, 'them', ['B'])
  logins.client = () => ({ clientId: 'me', password: key })
  logins.report = (id) => ({ clientId: `me~${id}`, username: 'me', password: key })
  for (const role of Role.options) {
    const { name, token } = await principal(server, role)
    logins[role] = (clientId) => ({ clientId, username: name, password: token })
  }
})
afterAll(() => server.stop())

async function login(kind: Kind) {
  const device = await connectDevice(server, logins[kind](fresh('c')))
  expect(device.returnCode).toBe(0)
  return device
}

test('every topic has a row', () => {
  expect(Object.keys(TABLE).sort()).toEqual([...NAMES].sort())
  expect(WILDCARDS.length).toBeGreaterThan(40)
})

describe.each(KINDS)('a login as %s', (kind) => {
  const isPrincipal = PRINCIPALS.includes(kind)

  describe.each(CASES)('$name, $whose', ({ name, whose, topic }) => {
    const may = (what: 'publish' | 'subscribe') =>
      TABLE[name][what].includes(kind) && (whose === 'own' || (what === 'subscribe' && isPrincipal))

    test.each([0, 1, 2] as const)(`publishes to it at QoS %i: ${may('publish') ? 'taken' : 'closed'}`, async (qos) => {
      const device = await login(kind)
      const published = device.publish(topic, { state: 'x', status: 'accepted', id: fresh('e') }, { qos })
      if (may('publish') && qos < 2) {
        await published
        await device.ping()
        await device.end()
      } else {
        await published.catch(() => undefined)
        await device.whenClosed()
        expect(device.packets.map(({ cmd }) => cmd)).toEqual(['connack'])
      }
    })

    test(`subscribes to it: ${may('subscribe') ? 'granted' : '128'}`, async () => {
      const device = await login(kind)
      const granted: number[] = []
      for (const qos of [0, 1, 2] as const) granted.push(...(await device.subscribe(topic, qos)))
      const atQos0 = kind === 'client' && NEED_QOS_1.includes(name) ? 128 : 0
      expect(granted).toEqual(may('subscribe') ? [atQos0, 1, 1] : [128, 128, 128])
      await device.end()
    })
  })

  test('subscribes to wildcards: below the root a principal, nobody else', async () => {
    const device = await login(kind)
    const expected = WILDCARDS.map((filter) => (isPrincipal && filter.startsWith(`${ROOT}/`) ? 1 : 128))
    expect(await device.subscribe(WILDCARDS)).toEqual(expected)
    await device.end()
  })

  test('subscribes to nothing that is elsewhere, and to no shared subscription', async () => {
    const device = await login(kind)
    const filters = [...ELSEWHERE, ...SHARED]
    expect(await device.subscribe(filters)).toEqual(filters.map(() => 128))
    await device.end()
  })

  test('publishes nowhere else', async () => {
    for (const topic of [...ELSEWHERE.filter((filter) => !filter.includes('#')), `${ROOT}/clients/me`]) {
      const device = await login(kind)
      await device.publish(topic, {}).catch(() => undefined)
      await device.whenClosed()
      expect(device.packets.map(({ cmd }) => cmd)).toEqual(['connack'])
    }
  })
})
