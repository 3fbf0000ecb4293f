import { afterAll, beforeAll, expect, test } from 'vitest'
import { LOGIN_ROUNDS, loginAttacksOf } from './support/login-cases.ts'
import { enterBy } from './support/peer.ts'
import { type Scene, startScene } from './support/scene.ts'

let scene: Scene
beforeAll(async () => {
  scene = await startScene()
})
afterAll(() => scene.stop())

test.each(LOGIN_ROUNDS)('nobody comes in as somebody else: $kind, by $door', async ({ door, kind }) => {
  await scene.harmless(async () => {
    for (const [attack, { connects, expected }] of Object.entries(loginAttacksOf(kind))) {
      for (const connect of connects) {
        const peer = await enterBy(door, scene.server, scene.logins[kind], connect)
        expect({ attack, connect, code: peer.returnCode }).toEqual({ attack, connect, code: expected })
        await peer.leave(expected === 0 ? 'disconnect' : 'drop')
      }
    }
  })
})
