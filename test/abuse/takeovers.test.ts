import { afterAll, beforeAll, expect, test } from 'vitest'
import { commandsOf, register, untilStatus } from '../broker/support/scene.ts'
import { connectDevice, type Device } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

/** TAKEOVER_ROUNDS=1000 for the whole of it, which takes minutes. */
const ROUNDS = Number(process.env.TAKEOVER_ROUNDS ?? 50)
const AT_ONCE = 10

let server: TestServer
beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

const presence = async (id: string): Promise<string> => (await server.api.get(`/clients/${id}`)).body.presence

test(`of ${AT_ONCE} simultaneous connections under one id one lives on, and it gets the work: ${ROUNDS} rounds`, async () => {
  const password = await register(server, 'crowd')
  let before: Device | undefined
  for (let round = 0; round < ROUNDS; round++) {
    const crowd = await Promise.all(
      Array.from({ length: AT_ONCE }, () => connectDevice(server, { clientId: 'crowd', password })),
    )
    const living = () => crowd.filter(({ closed }) => !closed)
    await until(() => living().length <= 1 && before?.closed !== false, `round ${round}: the others are closed`)
    const [survivor] = living()
    expect([round, living().length, survivor?.returnCode]).toEqual([round, 1, 0])
    const newest = survivor as Device
    expect(await newest.subscribe(commandsOf('crowd'))).toEqual([1])
    const { body } = await server.api.post('/commands', { clientId: 'crowd', action: 'do' })
    const { messageId, payload } = await newest.nextCommand()
    expect([round, payload.id, payload.attempt]).toEqual([round, body.id, 1])
    newest.ack(messageId)
    await newest.report(body.id, { status: 'completed', attempt: 1 })
    await untilStatus(server, body.id, 'completed')
    expect([round, await presence('crowd')]).toEqual([round, 'online'])
    expect([round, newest.closed]).toEqual([round, false])
    before = newest
  }
  // The session of the last one is the newest that there was.
  const [row] = await server.sql<{ newest: boolean }>(
    `select session_epoch = (select max((data ->> 'epoch')::bigint) from events where type = 'client.online') as newest
     from clients where id = 'crowd'`,
  )
  expect(row?.newest).toBe(true)
  await before?.end()
  await until(async () => (await presence('crowd')) === 'offline', 'offline')
  const events = await server.sql<{ type: string }>(
    `select type from events where type in ('client.online', 'client.offline') order by id`,
  )
  expect(events.filter(({ type }, index) => type !== (index % 2 === 0 ? 'client.online' : 'client.offline'))).toEqual(
    [],
  )
}, 1_200_000)
