import { expect, test } from 'vitest'
import { DEAD_LOGIN_ROUNDS } from './support/dead-login-cases.ts'
import { LOGIN_ROUNDS, loginAttacksOf } from './support/login-cases.ts'
import { PAYLOAD_ROUNDS, payloadAttacksOf } from './support/payload-cases.ts'
import { fieldAttacksOf, STRING_ROUNDS } from './support/string-cases.ts'
import { FORBIDDEN_FILTERS, FORBIDDEN_TOPICS, PUBLISH_ROUNDS, ROUNDS } from './support/topic-cases.ts'

const topics = Object.keys(FORBIDDEN_TOPICS)

/**
 * The cases of this folder, by name: attack, door, and who tries. Values that are varied within an attack (ten ways to write an
 * id that looks like another, thirteen lines of SQL) count once. Made from the same tables as the tests are.
 */
const CASES: Record<string, string[]> = {
  'logins.test.ts: to come in as somebody else': LOGIN_ROUNDS.flatMap(({ door, kind }) =>
    Object.keys(loginAttacksOf(kind)).map((attack) => `${attack}, ${door}, ${kind}`),
  ),
  'topics.test.ts: to publish elsewhere': PUBLISH_ROUNDS.flatMap(({ door, who, how }) =>
    topics.map((topic) => `publish ${how} to ${topic}, ${door}, ${who}`),
  ),
  'topics.test.ts: to leave a will elsewhere': PUBLISH_ROUNDS.flatMap(({ door, who, how }) =>
    topics.map((topic) => `will ${how} to ${topic}, ${door}, ${who}`),
  ),
  'topics.test.ts: to listen elsewhere': ROUNDS.flatMap(({ door, who }) =>
    Object.keys(FORBIDDEN_FILTERS).map((filter) => `subscribe to ${filter}, ${door}, ${who}`),
  ),
  'payloads.test.ts: to send poison where one may publish': PAYLOAD_ROUNDS.flatMap(({ door, who, topic }) =>
    payloadAttacksOf(topic).map((attack) => `${attack} on ${topic}, ${door}, ${who}`),
  ),
  'dead-logins.test.ts: to call with what is no login any more': DEAD_LOGIN_ROUNDS.flatMap(({ route, kinds }) =>
    kinds.map((kind) => `${route}, HTTP, ${kind}`),
  ),
  'strings.test.ts: to send what means something elsewhere': STRING_ROUNDS.flatMap(({ route, caller }) =>
    fieldAttacksOf(route).map(({ field, attack }) => `${attack} in ${field.name} of ${route}, HTTP, ${caller}`),
  ),
}

test('there are at least 2,500 cases, and each is another', () => {
  const all = Object.values(CASES).flat()
  for (const [where, cases] of Object.entries(CASES)) console.log(`${String(cases.length).padStart(6)}  ${where}`)
  console.log(`${String(all.length).padStart(6)}  attacks by door and by who tries`)
  expect(new Set(all).size).toBe(all.length)
  expect(all.length).toBeGreaterThanOrEqual(2500)
})
