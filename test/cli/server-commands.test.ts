import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { cliFor, run, start } from './support/run.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

const ANY_PORTS = { HTTP_PORT: '0', MQTT_PORT: '0', MQTT_WS_PORT: '0' }
const directory = mkdtempSync(join(tmpdir(), 'signalbox-cli-server-'))
let server: TestServer
beforeAll(async () => {
  server = await startServer()
})
afterAll(async () => {
  await server.stop()
  rmSync(directory, { recursive: true })
})

test('serve prints its addresses, answers the other commands, and ends with 0 at the first signal', async () => {
  const database = await createTestDatabase()
  const env = { ...ANY_PORTS, DATABASE_URL: database.url, LOG_LEVEL: 'warn' }
  const serving = start(['serve'], { env })
  await until(() => serving.output.stdout.includes('Admin token'), 'ready', 30_000)
  const [, http] = /HTTP API +(\S+)\/api/.exec(serving.output.stdout) ?? []
  const [, token] = /Admin token, shown only now: (\S+)/.exec(serving.output.stdout) ?? []
  const created = await run(['clients', 'create', 's1', '--url', http as string, '--token', token as string])
  expect(created).toMatchObject({ code: 0 })
  serving.process.kill('SIGINT')
  expect(await serving.ended).toMatchObject({ code: 0, stderr: '' })
  await database.drop()
})

test('migrate brings a database up to date, once', async () => {
  const database = await createTestDatabase()
  await database.query('drop schema public cascade')
  await database.query('create schema public')
  const env = { DATABASE_URL: database.url }
  const first = await run(['migrate', '--json'], { env })
  expect(first).toMatchObject({ code: 0, stderr: '' })
  expect(JSON.parse(first.stdout).applied).toContain('0001-first-command')
  expect(await run(['migrate'], { env })).toMatchObject({ code: 0, stdout: 'the schema was up to date\n' })
  await database.drop()
  const gone = await run(['migrate'], { env })
  expect(gone).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('does not exist') })
})

test('doctor says what is well, with every setting and no secret', async () => {
  const url = new URL(server.database_.url)
  const DATABASE_URL = `postgres://${url.username}:hidden@${url.host}${url.pathname}${url.search}`
  const env = { ...ANY_PORTS, ADMIN_TOKEN, DATABASE_URL, DATA_DIR: directory, ...cliFor(server).env }
  const { code, stdout, stderr } = await run(['doctor', '--json'], { env })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).not.toContain(ADMIN_TOKEN)
  expect(stdout).not.toContain('hidden')
  const report = JSON.parse(stdout)
  expect(report.checks.every(({ state }: { state: string }) => state === 'ok')).toBe(true)
  expect(report.checks.map(({ name }: { name: string }) => name)).toEqual(
    expect.arrayContaining([
      'Node.js',
      'platform',
      'settings',
      'DATA_DIR',
      'PostgreSQL',
      'HTTP_PORT',
      'server',
      'token',
    ]),
  )
  const settings = new Map(report.settings.map((one: { name: string }) => [one.name, one]))
  expect(settings.get('ADMIN_TOKEN')).toMatchObject({ value: '***', given: true })
  expect(settings.get('LOG_LEVEL')).toMatchObject({ value: 'info', given: false, meaning: 'pino level' })
})

test('doctor tries the embedded database without touching the data, and names what is broken', async () => {
  const healthy = await run(['doctor'], { env: { ...ANY_PORTS, DATA_DIR: join(directory, 'new') } })
  expect(healthy).toMatchObject({ code: 0, stderr: '' })
  expect(healthy.stdout).toMatch(/^PostgreSQL +ok +\d+, embedded, starts here$/m)
  expect(healthy.stdout).toMatch(/^server +note +no server answers/m)
  expect(readdirSync(directory)).toEqual([])

  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const { port } = taken.address() as { port: number }
  const env = {
    ...ANY_PORTS,
    HTTP_PORT: `${port}`,
    DATABASE_URL: 'postgres://127.0.0.1:9/x',
    SIGNALBOX_URL: 'http://127.0.0.1:4',
  }
  const ill = await run(['doctor'], { env })
  taken.close()
  expect(ill).toMatchObject({ code: 1, stderr: expect.stringContaining('something is broken') })
  expect(ill.stdout).toMatch(/^PostgreSQL +broken +connect ECONNREFUSED/m)
  expect(ill.stdout).toMatch(new RegExp(`^HTTP_PORT +broken +${port} on 127.0.0.1 is taken`, 'm'))
  expect(ill.stdout).toMatch(/^server +broken +no server answers/m)
  const senseless = await run(['doctor'], { env: { HTTP_PORT: 'many' } })
  expect(senseless.stdout).toMatch(/^settings +broken .*HTTP_PORT/m)
})

test('agent says what it lacks, and takes commands when it has it', async () => {
  expect(await run(['agent', '--id', 'g1', '--url', server.mqtt])).toMatchObject({ code: 2, stdout: '' })
  const cli = cliFor(server)
  const { clientKey } = await cli.json('clients create g1')
  const args = ['agent', '--id', 'g1', '--url', server.mqtt, '--journal', join(directory, 'g1', 'journal.sqlite')]
  const agent = start(args, { env: { SIGNALBOX_CLIENT_KEY: clientKey } })
  const sent = await cli('send --client g1 --action message --payload {"text":"hello"} --wait 20')
  expect(sent).toMatchObject({ code: 0 })
  expect(agent.output.stdout).toBe('hello\n')
  agent.process.kill('SIGTERM')
  expect(await agent.ended).toMatchObject({ code: 0 })
  rmSync(join(directory, 'g1'), { recursive: true })
})

test('completion knows the commands, in bash as bash sees it', async () => {
  const { code, stdout } = await run(['completion', 'bash'])
  expect(code).toBe(0)
  const complete = (...words: string[]): string[] => {
    const line = words.map((word) => `'${word}'`).join(' ')
    const script = `${stdout}\nCOMP_WORDS=(${line}); COMP_CWORD=${words.length - 1}; _signalbox; echo "\${COMPREPLY[@]}"`
    return spawnSync('bash', ['-c', script], { encoding: 'utf8' }).stdout.trim().split(' ')
  }
  expect(complete('signalbox', 'cl')).toEqual(['clients'])
  expect(complete('signalbox', 'clients', 'rot')).toEqual(['rotate-key'])
  expect(complete('signalbox', 'send', '--zone', 'A', '--wa')).toEqual(['--wait'])
  expect((await run(['completion', 'zsh'])).stdout).toMatch(/^#compdef signalbox\n/)
  expect((await run(['completion', 'fish'])).stdout).toContain(
    'complete -c signalbox -n \'__signalbox_at "clients"\' -f -a list',
  )
  expect(await run(['completion', 'cmd'])).toMatchObject({ code: 2, stdout: '' })
})
