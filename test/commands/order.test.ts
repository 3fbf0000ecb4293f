import { afterEach, expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { connectDevice, ROOT } from '../support/device.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'

let server: ServerProcess
afterEach(() => server.kill())

const HOUR_MS = 3_600_000

/** For a process whose wall clock is off. */
const wallClock = (offMs: number): Record<string, string> => {
  const program = `const now = Date.now; Date.now = () => now() + ${offMs}`
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(program)}` }
}

test('the oldest first, although the server had another time of day in each of its lives', {
  timeout: 90_000,
}, async () => {
  const database = await createTestDatabase()
  const created: string[] = []
  let clientKey = ''
  for (const offMs of [365 * 24 * HOUR_MS, -HOUR_MS]) {
    server = await startServerProcess(database, { env: wallClock(offMs) })
    if (created.length === 0) clientKey = (await server.api.post('/clients', { id: 'pda' })).body.clientKey
    for (let count = 0; count < 3; count++) {
      const { status, body } = await server.api.post('/commands', { clientId: 'pda', action: 'pick' })
      expect(status).toBe(201)
      created.push(body.id)
    }
    await server.kill()
  }
  server = await startServerProcess(database)
  const device = await connectDevice(server, { clientId: 'pda', password: clientKey })
  await device.subscribe(`${ROOT}/clients/pda/commands`)
  const handedOver: unknown[] = []
  for (const _command of created) {
    const { messageId, payload } = await device.nextCommand()
    handedOver.push(payload.id)
    device.ack(messageId)
    await device.report(payload.id as string, { status: 'completed', attempt: 1 })
  }
  expect(handedOver).toEqual(created)
  const listed = await server.api.get('/commands')
  expect(listed.body.items.map(({ id }: { id: string }) => id)).toEqual(created.toReversed())
  await device.end()
  await server.kill()
  await database.drop()
})
