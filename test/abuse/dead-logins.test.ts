import { afterAll, beforeAll, expect, test } from 'vitest'
import { EXPECTATIONS, type Expectation, headOf } from '../access/support/routes.ts'
import { DEAD_LOGIN_ROUNDS, deadLoginOf } from './support/dead-login-cases.ts'
import { type Scene, startScene } from './support/scene.ts'

let scene: Scene
beforeAll(async () => {
  scene = await startScene()
})
afterAll(() => scene.stop())

/** Whose work nobody moves meanwhile: it is offline. */
const VICTIM = { id: 'neighbour', key: '', zone: 'A' }

test.each(DEAD_LOGIN_ROUNDS)('$route opens to nobody without a login for it', async ({ route, method, kinds }) => {
  const request = await (EXPECTATIONS[route] as Expectation).request(scene.server, VICTIM)
  await scene.unchanged(async () => {
    for (const kind of kinds) {
      const { status, code } = await headOf(scene.server, scene.logins[kind].secret, method, request)
      expect({ kind, status, code }).toEqual({ kind, ...deadLoginOf(route, kind) })
    }
  })
})
