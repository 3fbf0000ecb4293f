import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { freePort } from '../../bench/ports.ts'
import { closeDatabase, reopenDatabase } from '../support/database-faults.ts'
import { ADMIN_TOKEN } from '../support/http.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

const FILE = 'deploy/haproxy.cfg'

describe.skipIf(!hasTool('haproxy', 'haproxy'))('the balancer', () => {
  const folder = mkdtempSync(join(tmpdir(), 'signalbox-balancer-'))
  const servers: TestServer[] = []
  const doors: Record<number, number> = {}
  let stop: () => Promise<void>
  let log = ''

  beforeAll(async () => {
    for (const _ of ['node-1', 'node-2']) servers.push(await startServer())
    // As many connections as the file allows need more file descriptors than a test may have.
    let text = readFileSync(FILE, 'utf8').replace(/^ +maxconn \d+$/m, '    maxconn 1000')
    for (const port of [3000, 1883, 8083]) {
      doors[port] = await freePort()
      text = text.replace(`bind :${port}`, `bind 127.0.0.1:${doors[port]}`)
    }
    for (const [index, server] of servers.entries()) {
      const http = Number(new URL(server.http).port)
      const ports = { 3000: http, 1883: server.mqttPort, 8083: Number(new URL(server.mqttWebSocket).port) }
      for (const [port, real] of Object.entries(ports)) {
        text = text.replace(`node-${index + 1}:${port}`, `127.0.0.1:${real} check port ${http}`)
      }
    }
    const file = join(folder, 'haproxy.cfg')
    writeFileSync(file, text)
    const child = spawn('haproxy', ['-f', file], { stdio: 'pipe' })
    const ended = once(child, 'exit')
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (log += chunk))
    stop = async () => {
      child.kill('SIGTERM')
      await ended
    }
    await until(async () => {
      if (child.exitCode !== null) throw new Error(log)
      return fetch(`http://127.0.0.1:${doors[3000]}/health`).then(
        ({ ok }) => ok,
        () => false,
      )
    }, 'the balancer')
  })
  afterAll(async () => {
    await stop?.()
    for (const server of servers) await server.stop()
    rmSync(folder, { recursive: true })
  })

  const login = (clientId: string, url = `mqtt://127.0.0.1:${doors[1883]}`) =>
    connectAsync(url, { clientId, username: 'admin', password: ADMIN_TOKEN, reconnectPeriod: 0 })
  /** MQTT connections by node. */
  const connected = () =>
    Promise.all(
      servers.map(async ({ http }) => {
        const text = await (await fetch(`${http}/metrics`)).text()
        return Number(/^signalbox_mqtt_connections\{login="principal"\} (\d+)$/m.exec(text)?.[1] ?? 0)
      }),
    )

  test('its configuration is valid as it is committed', () => {
    expect(() => execFileSync('haproxy', ['-c', '-f', FILE], { stdio: 'pipe' })).not.toThrow()
  })

  test('spreads connections over both nodes, whatever the door', async () => {
    const clients = await Promise.all([1, 2, 3, 4, 5, 6].map((n) => login(`tool-${n}`)))
    expect(await connected()).toEqual([3, 3])
    const webSocket = await login('browser', `ws://127.0.0.1:${doors[8083]}/mqtt`)
    expect((await connected()).reduce((sum, count) => sum + count)).toBe(7)
    for (const client of [...clients, webSocket]) await client.endAsync()
    await until(async () => (await connected()).join() === '0,0', 'all gone')
  })

  test('sends nobody new to a node whose database does not answer, and leaves those who are there', async () => {
    const clients = await Promise.all([1, 2, 3, 4].map((n) => login(`before-${n}`)))
    let lost = 0
    for (const client of clients) client.on('close', () => lost++)
    const { database_: database } = servers[0] as TestServer
    await closeDatabase(database)
    await until(() => /Server mqtt\/node-1 is DOWN/.test(log), 'the node is out', 30_000)
    const after = await Promise.all([1, 2, 3, 4].map((n) => login(`after-${n}`)))
    expect((await connected())[1]).toBe(6)
    expect(lost).toBe(0)
    await reopenDatabase(database)
    for (const client of [...clients, ...after]) await client.endAsync()
  })
})
