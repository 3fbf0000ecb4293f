import { afterAll, beforeAll, expect, test } from 'vitest'
import { ROOT } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { enter, own, register, technician } from './support/scene.ts'

const CLIENTS = 40
const ROUNDS = 20

let server: TestServer
beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

test('whoever subscribes while statuses change ends up with the newest of each', async () => {
  const ids = Array.from({ length: CLIENTS }, (_, index) => `d${index}`)
  const devices = await Promise.all(ids.map(async (id) => enter(server, id, await register(server, id))))
  for (let round = 0; round < ROUNDS; round++) {
    const published = Promise.all(
      devices.map((device, index) => device.publish(own(ids[index] as string, 'status'), { state: 'online', round })),
    )
    const onlooker = await technician(server, `onlooker-${round}`, `${ROOT}/clients/+/status`)
    await published
    const last = (id: string): unknown => onlooker.received(own(id, 'status')).at(-1)?.payload.round
    await until(
      () => ids.every((id) => onlooker.received(own(id, 'status')).some((one) => one.payload.round === round)),
      'all of them',
    )
    await onlooker.ping()
    expect(ids.map(last)).toEqual(ids.map(() => round))
    await onlooker.end()
  }
  await Promise.all(devices.map((device) => device.end()))
})
