import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { createLuck, outages } from '../../cli/simulate/behaviour.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { type Cli, cliFor, start } from './support/run.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })
const PATIENCE_MS = 60_000

let server: TestServer
let cli: Cli
beforeAll(async () => {
  server = await startServer()
  cli = cliFor(server)
})
afterAll(() => server.stop())

const simulate = (line: string, ...more: string[]) =>
  start(['simulate', ...line.split(' '), ...more, '--url', server.mqtt, '--json'], { env: cli.env })

const subscribed = async (zone: string, clients: number): Promise<boolean> => {
  const { items } = (await server.api.get(`/clients?zone=${zone}&presence=online&limit=200`)).body
  return items.length === clients
}

test('fifty simulated devices take a broadcast, all complete it, and Ctrl-C ends with a summary', async () => {
  const steady = '--failures 0 --disconnects 0 --offline 0 --think-ms 5..50'
  const fleet = simulate(`--clients 50 --zones A,B ${steady}`)
  await until(async () => (await subscribed('A', 25)) && (await subscribed('B', 25)), '50 online', PATIENCE_MS)
  const sent = await cli('send --broadcast --action anything --payload {"n":1} --wait 30 --json')
  expect(sent).toMatchObject({ code: 0 })
  expect(JSON.parse(sent.stdout)).toMatchObject({ status: 'completed', counts: { completed: 50 } })
  await until(() => /connected 50\/50 .*completed 50/.test(fleet.output.stderr), 'the counts of a second', PATIENCE_MS)
  fleet.process.kill('SIGINT')
  const { code, stdout, stderr } = await fleet.ended
  expect({ code, stderr }).toMatchObject({ code: 0 })
  expect(JSON.parse(stdout)).toMatchObject({ clients: 50, everConnected: 50, disconnects: 0, completed: 50, failed: 0 })
})

test('a shaky fleet settles what it was told, in truth', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'signalbox-simulate-'))
  onTestFinished(() => rmSync(directory, { recursive: true }))
  const shaky = '--failures 0.4 --disconnects 10/min --offline 0.05 --think-ms 100..900 --seed 7 --prefix shaky-'
  const fleet = simulate(`--clients 20 --zones S ${shaky} --journal-dir`, directory)
  await until(
    async () => (await server.api.get('/clients?zone=S&presence=online')).body.items.length > 10,
    'most online',
  )
  const sent = await cli.json('send --zone S --action anything')
  const settled = async () => {
    const { counts, total } = (await server.api.get(`/commands/${sent.id}`)).body
    return (counts.completed ?? 0) + (counts.failed ?? 0) === total
  }
  await until(settled, 'every execution settled', PATIENCE_MS)
  fleet.process.kill('SIGINT')
  const summary = JSON.parse((await fleet.ended).stdout)
  const { counts } = (await server.api.get(`/commands/${sent.id}`)).body
  expect(counts).toEqual({ completed: summary.completed, failed: summary.failed })
  expect(summary.disconnects).toBeGreaterThan(0)
  expect(readdirSync(directory).filter((name) => name.endsWith('.sqlite'))).toHaveLength(20)
  // The same fleet again, for a moment: it is known, and gets new keys.
  const again = simulate('--clients 20 --zones S --prefix shaky- --offline 0 --disconnects 0 --journal-dir', directory)
  await until(() => again.output.stderr.includes('connected 20/20'), 'all connected', PATIENCE_MS)
  again.process.kill('SIGINT')
  const { code, stdout } = await again.ended
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ clients: 20, everConnected: 20, refused: 0 })
})

test('a fleet that cannot connect, or makes no sense, says so', async () => {
  const lost = start(['simulate', '--clients', '1', '--url', 'mqtt://127.0.0.1:9', '--duration', '0.2'], {
    env: cli.env,
  })
  expect(await lost.ended).toMatchObject({ code: 4, stderr: expect.stringContaining('no device could connect') })
  for (const line of ['--clients 0', '--clients 1 --think-ms 9..1', '--clients 1 --disconnects often']) {
    expect(await simulate(line).ended, line).toMatchObject({ code: 2, stdout: '' })
  }
})

test('a seed makes the same luck, of the asked size', () => {
  const behaviour = { thinkMs: { min: 1, max: 2 }, failures: 0, disconnects: 0.1, offline: 0.2, seed: 3 }
  const take = (index: number) => {
    const all = outages(behaviour, createLuck(behaviour.seed, index))
    return Array.from({ length: 2000 }, () => all.next().value ?? { afterMs: 0, forMs: 0 })
  }
  expect(take(1)).toEqual(take(1))
  expect(take(1)).not.toEqual(take(2))
  const sum = (key: 'afterMs' | 'forMs', from: { afterMs: number; forMs: number }[]) =>
    from.reduce((n, one) => n + one[key], 0)
  const long = { ...behaviour, disconnects: 0 }
  const away = Array.from(
    { length: 5000 },
    (() => {
      const all = outages(long, createLuck(3, 5))
      return () => all.next().value ?? { afterMs: 0, forMs: 0 }
    })(),
  )
  expect(sum('forMs', away) / (sum('forMs', away) + sum('afterMs', away))).toBeCloseTo(0.2, 1)
  expect([...outages({ ...behaviour, disconnects: 0, offline: 0 }, createLuck(1, 1))]).toEqual([])
})
