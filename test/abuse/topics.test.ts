import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Connect, enterBy, type MqttDoor, type Peer } from './support/peer.ts'
import { type Scene, startScene } from './support/scene.ts'
import {
  FORBIDDEN_FILTERS,
  FORBIDDEN_TOPICS,
  type Insider,
  isPrincipal,
  PUBLISH_ROUNDS,
  ROUNDS,
} from './support/topic-cases.ts'

/** By turns. */
const QOS = [0, 1, 2] as const
/** A CONNECT with such a will is ill-formed: it is not answered, whoever sends it. */
const UNREADABLE = [
  'many levels',
  'nothing but slashes',
  'more bytes than a topic has',
  'a wildcard for one level',
  'a wildcard for all',
  'a character that is none',
]

let scene: Scene
beforeAll(async () => {
  scene = await startScene()
})
afterAll(() => scene.stop())

const nameOf = (insider: Insider): string => scene.logins[insider.kind].username as string

function enter(door: MqttDoor, insider: Insider, will?: Connect['will']): Promise<Peer> {
  const name = nameOf(insider)
  const clientId = insider.as === 'itself' ? name : `${name}~side`
  return enterBy(door, scene.server, scene.logins[insider.kind], { clientId, ...(will ? { will } : {}) })
}

const poison = JSON.stringify({ state: 'poison', status: 'completed', id: 'poison', type: 'command', action: 'work' })

/** Each attack of the table, one after the other, and what came of each. */
async function all<Row, Outcome>(table: Record<string, Row>, attack: (row: Row, index: number) => Promise<Outcome>) {
  const outcomes: Record<string, Outcome> = {}
  for (const [index, [name, row]] of Object.entries(table).entries()) outcomes[name] = await attack(row, index)
  return outcomes
}

const each = <Outcome>(table: object, outcome: (name: string) => Outcome): Record<string, Outcome> =>
  Object.fromEntries(Object.keys(table).map((name) => [name, outcome(name)]))

describe('nobody publishes where he may not', () => {
  test.each(PUBLISH_ROUNDS)('$how, by $door, $who', async ({ door, insider, retain }) => {
    await scene.harmless(async () => {
      const outcomes = await all(FORBIDDEN_TOPICS, async (topic, index) => {
        const peer = await enter(door, insider)
        // Retained and empty: what was retained there would be gone.
        const payload = retain && index % 2 === 0 ? '' : poison
        const published = await peer.publish(topic(nameOf(insider)), payload, { qos: QOS[index % 3] ?? 0, retain })
        return [peer.returnCode, published, peer.packets.length]
      })
      expect(outcomes).toEqual(each(FORBIDDEN_TOPICS, () => [0, 'closed', 1]))
    })
  })
})

describe('no will is left where he may not publish', () => {
  test.each(PUBLISH_ROUNDS)('$how, by $door, $who', async ({ door, insider, retain }) => {
    await scene.harmless(async () => {
      const outcomes = await all(FORBIDDEN_TOPICS, async (topic, index) => {
        const will = { topic: topic(nameOf(insider)), payload: poison, qos: index % 3, retain }
        const peer = await enter(door, insider, will)
        await peer.leave()
        return peer.returnCode
      })
      expect(outcomes).toEqual(each(FORBIDDEN_TOPICS, (name) => (UNREADABLE.includes(name) ? -1 : 5)))
    })
  })
})

describe('nobody listens where he may not', () => {
  test.each(ROUNDS)('by $door, $who', async ({ door, insider }) => {
    await scene.harmless(async () => {
      const outcomes = await all(FORBIDDEN_FILTERS, async ({ filter }) => {
        const peer = await enter(door, insider)
        const codes = [await peer.subscribe(filter(nameOf(insider)), 1)]
        if (!peer.closed)
          codes.push(await peer.subscribe(filter(nameOf(insider)), 0), await peer.subscribe(filter(nameOf(insider)), 2))
        await peer.leave()
        return codes.join(' ')
      })
      const expected = each(FORBIDDEN_FILTERS, (name) => {
        const { principal, client } = FORBIDDEN_FILTERS[name] as (typeof FORBIDDEN_FILTERS)[string]
        const code = isPrincipal(insider) ? principal : (client ?? 128)
        return code === 'closed' ? code : code === 1 ? '1 0 1' : '128 128 128'
      })
      expect(outcomes).toEqual(expected)
    })
  })
})
