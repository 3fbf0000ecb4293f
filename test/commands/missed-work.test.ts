import { afterAll, beforeAll, expect, test } from 'vitest'
import { command, enter, register } from '../broker/support/scene.ts'
import { startServer, type TestServer } from '../support/server.ts'

let server: TestServer
beforeAll(async () => {
  server = await startServer({ SWEEP_INTERVAL_SECONDS: 0.05, SWEEP_SESSIONS: 1 })
})
afterAll(() => server.stop())

test('work that nobody told of is found for each session, though one is looked at at a time', async () => {
  const names = ['one', 'two', 'three']
  const devices = []
  for (const name of names) devices.push(await enter(server, name, await register(server, name)))
  const ids: string[] = []
  for (const name of names) {
    await register(server, `${name}-absent`)
    ids.push(await command(server, `${name}-absent`))
  }
  await server.sql("update executions set client_id = replace(client_id, '-absent', '') where status = 'pending'")
  const received = await Promise.all(devices.map(async (device) => (await device.nextCommand()).payload.id))
  expect(received).toEqual(ids)
})
