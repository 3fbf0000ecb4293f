import { generate } from 'mqtt-packet'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { connectDevice, type Device } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { CONNECT, command, commandsOf, enter, openSocket, register, untilStatus, watchBroker } from './support/scene.ts'

const broker = watchBroker()
let server: TestServer

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

/** The connection is the one that gets the client's work. */
async function servesWork(device: Device): Promise<void> {
  const id = await command(server, device.clientId)
  const { messageId, payload } = await device.nextCommand()
  expect(payload).toMatchObject({ type: 'command', id, attempt: 1 })
  device.ack(messageId)
  await device.report(id, { status: 'completed', attempt: 1 })
  await untilStatus(server, id, 'completed')
}

test('of five simultaneous connections exactly one survives, the broker knows it, and it gets the work: 20 rounds', async () => {
  const password = await register(server, 'crowd')
  const { clients } = broker()
  for (let round = 0; round < 20; round++) {
    const crowd = await Promise.all([1, 2, 3, 4, 5].map(() => connectDevice(server, { clientId: 'crowd', password })))
    await until(() => crowd.filter(({ closed }) => !closed).length <= 1, 'the others are closed')
    const [survivor] = crowd.filter(({ closed }) => !closed)
    if (!survivor) throw new Error(`round ${round}: none survived`)
    expect(survivor.returnCode).toBe(0)
    expect(clients.crowd?.closed).toBe(false)
    expect(await survivor.subscribe(commandsOf('crowd'))).toEqual([1])
    expect(Object.keys(clients.crowd?.subscriptions ?? {})).toEqual([commandsOf('crowd')])
    await servesWork(survivor)
    expect((await server.api.get('/clients/crowd')).body.presence).toBe('online')
  }
})

test('the newest of connections that come one after the other wins, however quickly: 30 rounds', async () => {
  const password = await register(server, 'quick')
  const { clients } = broker()
  const all: Device[] = []
  for (let round = 0; round < 30; round++) {
    // By turns: the older one vanishes, says goodbye, or is still there.
    if (round % 3 === 1) all.at(-1)?.drop()
    if (round % 3 === 2) all.at(-1)?.send({ cmd: 'disconnect' })
    const device = await enter(server, 'quick', password)
    all.push(device)
    await servesWork(device)
    expect(clients.quick?.closed).toBe(false)
  }
  await until(() => all.slice(0, -1).every(({ closed }) => closed), 'the older ones are closed')
  expect(all.at(-1)?.closed).toBe(false)
})

test('connections that vanish at any moment of their login leave nobody online and block nobody', async () => {
  const password = Buffer.from(await register(server, 'vanishing'))
  const connect = generate({ ...CONNECT, clientId: 'vanishing', username: 'vanishing', password })
  for (let round = 0; round < 30; round++) {
    const raw = await openSocket(server)
    raw.socket.write(connect)
    // From before the first query until after the CONNACK.
    for (let turn = 0; turn < round; turn++) await new Promise((resolve) => setImmediate(resolve))
    raw.socket.destroy()
  }
  const last = await enter(server, 'vanishing', password.toString())
  await servesWork(last)
  await last.end()
  await until(async () => (await server.api.get('/clients/vanishing')).body.presence === 'offline', 'offline')
  await until(() => broker().clients.vanishing === undefined, 'the broker has forgotten it')
})

test('each session ends before its successor begins: online and offline alternate in the record', async () => {
  const events = await server.sql<{ client_id: string; type: string; epoch: number }>(
    `select client_id, type, (data ->> 'epoch')::int as epoch from events
     where type in ('client.online', 'client.offline') order by client_id, id`,
  )
  for (const clientId of ['crowd', 'quick', 'vanishing']) {
    const own = events.filter((event) => event.client_id === clientId)
    expect(own.length).toBeGreaterThan(1)
    for (const [index, { type, epoch }] of own.entries()) {
      expect(type).toBe(index % 2 === 0 ? 'client.online' : 'client.offline')
      if (index % 2 === 1) expect(epoch).toBe(own[index - 1]?.epoch)
      else if (index > 0) expect(epoch).toBeGreaterThan(own[index - 1]?.epoch ?? 0)
    }
  }
})
