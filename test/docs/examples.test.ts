import { afterAll, beforeAll, describe, expect, type TestContext, test } from 'vitest'
import { connectDevice } from '../support/device.ts'
import { openStream } from '../support/event-source.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { createDeviceProcess, type Example, RUNNABLE } from './device-process.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server?.stop())

/** Registers a client and starts the example as it. */
async function startExample(example: Example, suffix: string, { onTestFinished }: TestContext) {
  const clientId = `${example.name}-${suffix}`
  const key = (await server.api.post('/clients', { id: clientId })).body.clientKey as string
  const device = createDeviceProcess(example, server, clientId, key)
  onTestFinished(() => device.remove())
  device.start()
  return {
    ...device,
    clientId,
    async send(action: string, payload?: unknown): Promise<string> {
      return (await server.api.post('/commands', { clientId, action, payload })).body.id
    },
    async settled(id: string, status: string) {
      const seen = { status: '' }
      return until(async () => {
        const { body } = await server.api.get(`/commands/${id}`)
        seen.status = body.status
        return body.status === status && body
      }, `${clientId}: ${status}`).catch((error) => {
        throw new Error(`${error.message}, but is ${seen.status}\n${device.output()}`)
      })
    },
    /** Somebody else takes over the session and leaves at once. */
    async disturb() {
      if (example.transport === 'mqtt') (await connectDevice(server, { clientId, password: key })).drop()
      else (await openStream(`${server.http}/api/events/${clientId}`, key)).close()
    },
  }
}

describe.for(RUNNABLE)('the example $name', (example) => {
  test
    .skipIf(!example.available)
    .concurrent('takes a command to its outcome, and refuses what it does not do', async (context) => {
      const device = await startExample(example, 'outcome', context)
      const picked = await device.send('pick', { order: 'A-1' })
      expect(await device.settled(picked, 'completed')).toMatchObject({ attempt: 1, result: { picked: 1 } })
      expect(device.picked()).toEqual([{ order: 'A-1' }])
      const { items } = (await server.api.get(`/commands/${picked}/timeline`)).body
      expect(items.map((event: { type: string }) => event.type)).toContain('execution.running')
      const refused = await device.send('dance')
      expect((await device.settled(refused, 'rejected')).error).toMatchObject({ code: 'UNKNOWN_ACTION' })
      const broken = await device.send('wait', 'no object')
      expect((await device.settled(broken, 'failed')).error.message).not.toBe('')
      const { reported } = (await server.api.get(`/clients/${device.clientId}`)).body
      if (example.journal && example.transport === 'mqtt')
        expect(reported).toMatchObject({ journalId: expect.any(String) })
    })

  test
    .skipIf(!example.available)
    .concurrent(
      'a command that runs while the connection is lost is reported after it, and done once',
      async (context) => {
        const device = await startExample(example, 'lost', context)
        const running = await device.send('wait', { seconds: 1 })
        await device.settled(running, 'running')
        await device.disturb()
        const meanwhile = await device.send('pick', { order: 'A-2' })
        await device.settled(running, 'completed')
        await device.settled(meanwhile, 'completed')
        expect(device.picked()).toEqual([{ order: 'A-2' }])
      },
    )

  test.skipIf(!example.available).concurrent('a cancel ends what runs', async (context) => {
    const device = await startExample(example, 'cancel', context)
    const id = await device.send('wait', { seconds: 60 })
    const body = await device.settled(id, 'running')
    expect(body.status).toBe('running')
    await until(async () => {
      const { items } = (await server.api.get(`/commands/${id}/timeline`)).body
      return items.some((event: { type: string }) => event.type === 'execution.progress')
    }, 'progress')
    await server.api.post(`/commands/${id}/cancel`, { reason: 'wrong order' })
    await device.settled(id, 'cancelled')
  })

  test
    .skipIf(!example.available)
    .concurrent('killed in the middle: outcome_unknown; another attempt is run', async (context) => {
      const device = await startExample(example, 'killed', context)
      const done = await device.send('pick', { order: 'A-3' })
      await device.settled(done, 'completed')
      const id = await device.send('wait', { seconds: 2 })
      await device.settled(id, 'running')
      await device.kill()
      device.start()
      await device.settled(id, 'outcome_unknown')
      await server.api.post(`/commands/${id}/retry`)
      expect(await device.settled(id, 'completed')).toMatchObject({ attempt: 2 })
      expect(device.picked()).toEqual([{ order: 'A-3' }])
    })
})
