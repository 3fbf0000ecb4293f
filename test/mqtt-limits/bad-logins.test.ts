import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { connectDevice, type Device, startDevice } from '../support/device.ts'
import type { TestServer } from '../support/server.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'

const PER_SECOND = 5000
const SECONDS = 6
let database: TestDatabase
let server: ServerProcess
let device: Device & { clientKey: string }

beforeAll(async () => {
  database = await createTestDatabase()
  server = await startServerProcess(database)
  device = await startDevice(server as unknown as TestServer, 'good')
})
afterAll(async () => {
  await server.kill()
  await database.drop()
})

/** A command from its creation to the outcome that the API answers, in milliseconds. */
async function command(): Promise<number> {
  const started = performance.now()
  const waiting = server.api.post('/commands?wait=10', { clientId: 'good', action: 'do' })
  const { messageId, payload } = await device.nextCommand()
  device.ack(messageId)
  await device.report(payload.id as string, { status: 'completed', attempt: 1 })
  expect((await waiting).body.status).toBe('completed')
  return performance.now() - started
}

async function measure(during: () => boolean): Promise<{ p50: number; p99: number; count: number }> {
  const times: number[] = []
  while (during()) times.push(await command())
  times.sort((a, b) => a - b)
  const at = (share: number) => times[Math.floor(times.length * share)] as number
  return { p50: at(0.5), p99: at(0.99), count: times.length }
}

const DOORS = [
  { door: 'MQTT', program: new URL('./support/mqtt-attacker.ts', import.meta.url), port: () => server.mqttPort },
  {
    door: 'HTTP',
    program: new URL('./support/http-attacker.ts', import.meta.url),
    port: () => Number(new URL(server.http).port),
  },
]

// It measures times, so it wants a machine to itself: MEASURE=1 npx vitest run test/mqtt-limits/bad-logins.test.ts
test.skipIf(!process.env.MEASURE).each(DOORS)(
  `${PER_SECOND} bad logins a second over $door from another address leave a good command fast`,
  async ({ door, program, port }) => {
    for (let count = 0; count < 100; count++) await command()
    let left = 100
    const calm = await measure(() => left-- > 0)
    const attacker = fork(fileURLToPath(program), [String(port()), String(PER_SECOND), '127.0.0.66'])
    let seen = { attempted: 0, refused: 0, seconds: 0 }
    attacker.on('message', (message) => {
      seen = message as typeof seen
    })
    try {
      await until(() => seen.attempted > 0, 'the attack')
      const ends = performance.now() + SECONDS * 1000
      const attacked = await measure(() => performance.now() < ends)
      const again = await connectDevice(server, { clientId: 'good~pub', username: 'good', password: device.clientKey })
      expect(again.returnCode).toBe(0)
      console.log(
        `p50/p99 of ${calm.count} commands: ${calm.p50.toFixed(1)}/${calm.p99.toFixed(1)} ms; of ${attacked.count} during ` +
          `${Math.round(seen.attempted / seen.seconds)} bad logins/s over ${door} (${seen.refused} of ${seen.attempted} answered): ` +
          `${attacked.p50.toFixed(1)}/${attacked.p99.toFixed(1)} ms`,
      )
      // On a machine that others use as well, what is measured is measured against what it is without the attack.
      expect(attacked.p99).toBeLessThan(Math.max(100, 4 * calm.p99))
      expect(seen.seconds).toBeGreaterThan(SECONDS - 1)
      // On two cores, which it shares with the server.
      expect(seen.attempted / seen.seconds).toBeGreaterThan(0.7 * PER_SECOND)
    } finally {
      attacker.kill()
    }
  },
  60_000,
)
