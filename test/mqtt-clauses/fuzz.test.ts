import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createConnection } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { startDevice } from '../support/device.ts'
import { residentMb } from '../support/memory.ts'
import type { TestServer } from '../support/server.ts'
import { type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { until } from '../support/until.ts'
import { join } from './support/client.ts'
import { createRandom, malformed, untimely } from './support/fuzz.ts'
import { connect } from './support/wire.ts'

const SEED = 424_242
const PACKETS_PER_CONNECTION = 20
const SPOILED_OF_TEN = [10, 1, 0] as const
const AT_ONCE = 25
const MAX_GROWTH_MB = 160

interface Counts {
  connections: number
  packets: number
  answers: number
}

/**
 * Many connections, most of them behind a login: each sends spoiled packets, or well-formed ones at any moment, or both. Resolves
 * when each of them has ended.
 */
async function fuzz(port: number, connections: number, logins: Buffer[], seed = SEED): Promise<Counts> {
  const random = createRandom(seed)
  const counts: Counts = { connections: 0, packets: 0, answers: 0 }
  const one = async (): Promise<void> => {
    const socket = createConnection({ port, host: '127.0.0.1', noDelay: true })
    socket.on('error', () => undefined)
    socket.on('data', () => counts.answers++)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    if (random.below(5) > 0) {
      socket.write(logins[random.below(logins.length)] as Buffer)
      const answered = new Promise((resolve) => socket.once('data', resolve))
      await Promise.race([answered, closed])
    }
    const spoiled = random.below(3)
    const bytes = Array.from({ length: PACKETS_PER_CONNECTION }, () =>
      random.below(10) < (SPOILED_OF_TEN[spoiled] as number) ? malformed(random) : untimely(random),
    )
    counts.packets += bytes.length
    // In pieces, so that answers come in between.
    for (let at = 0; at < bytes.length; at += 5) {
      socket.write(Buffer.concat(bytes.slice(at, at + 5)))
      await new Promise((resolve) => setImmediate(resolve))
    }
    socket.end()
    await closed
    counts.connections++
  }
  const lane = async (): Promise<void> => {
    while (counts.connections + AT_ONCE <= connections) await one()
  }
  await Promise.all(Array.from({ length: AT_ONCE }, lane))
  return counts
}

function report(who: string, counts: Counts, before: number, after: number): void {
  console.log(
    `${who}, seed ${SEED}: ${counts.packets} spoiled packets on ${counts.connections} connections, ` +
      `${counts.answers} answers, ${before.toFixed(0)} MB before, ${after.toFixed(0)} MB after`,
  )
}

describe('spoiled packets by the thousand', () => {
  let database: TestDatabase
  let server: ServerProcess
  let open: ChildProcess

  afterAll(async () => {
    open?.kill('SIGTERM')
    await server?.kill()
    await database?.drop()
  })

  test('leave a broker that anybody may use as it was', async () => {
    const program = fileURLToPath(new URL('../../broker/open/main.ts', import.meta.url))
    open = spawn(process.execPath, [program, '--port', '0'], { stdio: ['ignore', 'pipe', 'pipe'] })
    let complaints = ''
    open.stderr?.on('data', (chunk) => {
      complaints += chunk
    })
    const [line] = await once(createInterface({ input: open.stdout as NodeJS.ReadableStream }), 'line')
    const port = Number(/mqtt:\/\/127\.0\.0\.1:(\d+)/.exec(line)?.[1])
    const watcher = await join(port)
    await watcher.subscribe(['watched/#', 1])
    const logins = [2, 0].flatMap((flags) => ['f1', 'f2', 'f3'].map((clientId) => connect({ clientId, flags })))
    await fuzz(port, 100, logins)
    const before = residentMb(open)
    const counts = await fuzz(port, 1500, logins)
    const after = residentMb(open)
    report('the open broker', counts, before, after)
    await watcher.publish('watched/after', 'fine', { qos: 2 })
    await until(() => watcher.messages.some(({ topic }) => topic === 'watched/after'), 'a message through it')
    expect(complaints).toBe('')
    expect(open.exitCode).toBeNull()
    expect(after - before).toBeLessThan(MAX_GROWTH_MB)
  }, 120_000)

  test('leave the control plane as it was, and a device at work', async () => {
    database = await createTestDatabase()
    server = await startServerProcess(database, { settings: { MQTT_LOGIN_FAILURES_PER_MINUTE: 1_000_000 } })
    const device = await startDevice(server as unknown as TestServer, 'good')
    const { body } = await server.api.post('/clients', { id: 'fuzz' })
    const login = connect({ clientId: 'fuzz', flags: 0xc2, rest: ['fuzz', body.clientKey] })
    await fuzz(server.mqttPort, 50, [login])
    const before = residentMb(server.process)
    const counts = await fuzz(server.mqttPort, 400, [login])
    const after = residentMb(server.process)
    report('the control plane', counts, before, after)
    const { body: command } = await server.api.post('/commands', { clientId: 'good', action: 'do' })
    const { messageId } = await device.nextCommand()
    device.ack(messageId)
    await device.report(command.id, { status: 'completed', attempt: 1 })
    expect((await server.api.get(`/commands/${command.id}`)).body.status).toBe('completed')
    expect(server.process.exitCode).toBeNull()
    expect(after - before).toBeLessThan(MAX_GROWTH_MB)
  }, 120_000)
})
