import { afterAll, beforeAll, expect, test } from 'vitest'
import { ROOT } from '../support/device.ts'
import { PAYLOAD_ROUNDS, type PayloadTopic, payloadsOf } from './support/payload-cases.ts'
import { enterBy } from './support/peer.ts'
import { type Scene, startScene } from './support/scene.ts'

let scene: Scene
beforeAll(async () => {
  scene = await startScene()
})
afterAll(() => scene.stop())

const own = (rest: string): string => `${ROOT}/clients/attacker/${rest}`

test.each(PAYLOAD_ROUNDS)(
  'poison on $topic, by $door, $who: acknowledged, dropped, answered',
  async ({ door, topic, as, retain }) => {
    const topics: Record<PayloadTopic, string> = {
      status: own('status'),
      report: own(`commands/${scene.running}/status`),
      event: own('events/scan'),
    }
    const credentials = scene.logins['a client']
    const listener = await enterBy(door, scene.server, credentials)
    expect(await listener.subscribe(own('replies'))).toBe(1)
    const sender =
      as === 'itself' ? listener : await enterBy(door, scene.server, credentials, { clientId: 'attacker~side' })
    await scene.harmless(async () => {
      for (const [attack, payload] of Object.entries(payloadsOf(topic))) {
        const from = listener.packets.length
        expect([attack, await sender.publish(topics[topic], payload, { retain })]).toEqual([attack, 'taken'])
        const reply = await listener.next((one) => one.cmd === 'publish' && one.topic === own('replies'), from)
        listener.send(Buffer.from([0x40, 2, 0, reply.messageId as number]))
        const { type, code, topic: about } = JSON.parse(String(reply.payload))
        const expected = attack.startsWith("another's")
          ? 'NOT_FOUND'
          : attack.startsWith('more than')
            ? 'PAYLOAD_TOO_LARGE'
            : 'INVALID_INPUT'
        expect({ attack, type, code, about }).toEqual({ attack, type: 'error', code: expected, about: topics[topic] })
      }
    })
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
    await sender.leave('disconnect')
    if (sender !== listener) await listener.leave('disconnect')
  },
)
