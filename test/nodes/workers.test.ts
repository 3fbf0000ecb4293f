import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { grant, principal } from '../access/support/principals.ts'
import { register, technician, untilStatus } from '../broker/support/scene.ts'
import { type Running, start } from '../cli/support/run.ts'
import type { Device } from '../support/device.ts'
import { ADMIN_TOKEN, httpClient } from '../support/http.ts'
import type { TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { complete, enter, send } from './support/pair.ts'

/** `serve --workers 2` with nothing but a folder: PostgreSQL inside, no Redis. */
let serving: Running
let directory: string
let server: TestServer
let ledger: pg.Pool

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'signalbox-workers-'))
  serving = start(['serve', '--workers', '2'], {
    env: {
      DATA_DIR: directory,
      ADMIN_TOKEN,
      HTTP_PORT: '0',
      MQTT_PORT: '0',
      MQTT_WS_PORT: '0',
      LOG_LEVEL: 'error',
      // Longer than any test: what one worker does reaches the other by their line.
      SWEEP_INTERVAL_SECONDS: '60',
      NODE_LEASE_SECONDS: '5',
    },
  })
  const { process: child, output } = serving
  const found = (name: string): string | undefined => new RegExp(`${name} +(\\S+)`).exec(output.stdout)?.[1]
  await until(() => found('Database') ?? child.exitCode !== null, 'it is ready', 50_000)
  if (child.exitCode !== null) throw new Error(output.stderr)
  const http = (found('HTTP API') as string).replace(/\/api$/, '')
  const api = httpClient(http, ADMIN_TOKEN)
  server = { http, api, mqttPort: Number(new URL(found('MQTT') as string).port) } as TestServer
  ledger = new pg.Pool({ connectionString: found('Database') as string, max: 1 })
  ledger.on('error', () => undefined)
})
afterAll(async () => {
  serving.process.kill('SIGKILL')
  rmSync(directory, { recursive: true, force: true })
})

const nodes = async (): Promise<number[]> =>
  (await ledger.query<{ process_id: number }>('select process_id from nodes order by 1')).rows.map(
    (row) => row.process_id,
  )

/** How many sessions each worker has. */
const spread = async (): Promise<Map<number, number>> => {
  const { rows } = await ledger.query<{ pid: number; clients: number }>(
    `select n.process_id as pid, count(*)::integer as clients from clients k join nodes n on n.id = k.session_node group by 1`,
  )
  return new Map(rows.map(({ pid, clients }) => [pid, clients]))
}

/** A command for the zone of all devices, which each of them completes. */
async function everybodyWorks(devices: Device[]): Promise<void> {
  const id = await send(server, { zone: 'W' })
  await Promise.all(
    devices.map(async (device) => {
      const has = () => device.received().find(({ payload }) => payload.id === id)
      device.ack((await until(has, `${device.clientId} has it`)).messageId as number)
      await device.report(id, { status: 'completed', attempt: 1 })
    }),
  )
  await untilStatus(server, id, 'completed')
}

test('workers share the ports, hear of each other without Redis, are replaced, and stop together', {
  timeout: 120_000,
}, async () => {
  const workers = await nodes()
  expect(workers).toHaveLength(2)
  const keys = new Map<string, string>()
  const devices: Device[] = []
  for (let index = 0; index < 6; index++) {
    const id = `d${index}`
    keys.set(id, await register(server, id, { zones: ['W'] }))
    devices.push(await enter(server, id, keys.get(id) as string, { zones: ['W'] }))
  }
  expect([...(await spread()).values()].sort()).toEqual([3, 3])
  const watcher = await technician(server, 'watcher', 'signalbox/v1/clients/+/status')
  for (const device of devices) {
    const waiting = server.api.post('/commands?wait=20', { clientId: device.clientId, action: 'do' })
    await complete(device)
    expect((await waiting).body.status).toBe('completed')
  }
  // Each knows of the other from its first renewal on.
  await until(async () => {
    const { state, nodes } = (await server.api.get('/health')).body.checks.line
    return state === 'up' && nodes === 2
  }, 'they know of each other')
  await limitsAreExact()

  // One is killed: its devices come back to whoever is there, and there is a new one.
  const [killed] = workers as [number]
  process.kill(killed, 'SIGKILL')
  await until(() => devices.some(({ closed }) => closed), 'its devices notice')
  await until(async () => (await nodes()).length === 2 && !(await nodes()).includes(killed), 'a new worker', 30_000)
  for (const [index, device] of devices.entries())
    if (device.closed)
      devices[index] = await enter(server, device.clientId, keys.get(device.clientId) as string, { zones: ['W'] })
  await everybodyWorks(devices)
  await until(() => watcher.closed || watcher.received().length >= 6, 'presence')

  await ledger.end()
  serving.process.kill('SIGTERM')
  expect((await serving.ended).code, serving.output.stderr).toBe(0)
  for (const device of devices) await device.whenClosed()
})

async function limitsAreExact(): Promise<void> {
  const { token } = await principal(server, 'operator', [grant('*', { commandsPerMinute: 20 })])
  await register(server, 'nobody')
  const answers = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const api = httpClient(server.http, token)
      return (await api.post('/commands', { clientId: 'nobody', action: 'do' }, { connection: 'close' })).status
    }),
  )
  expect(answers.filter((status) => status === 201)).toHaveLength(20)
}
