import { execFile } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { start } from '../cli/support/run.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { ADMIN_TOKEN } from '../support/http.ts'
import { startServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'

const run = promisify(execFile)
const UNITS = ['signalbox.service', 'signalbox-agent@.service']
/** Of 100: what `systemd-analyze security` calls OK is below 50. */
const EXPOSURE = 20
const INSTALLED = '/opt/signalbox/'

const folder = mkdtempSync(join(tmpdir(), 'signalbox-systemd-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe.skipIf(!hasTool('systemd-analyze', 'systemd'))('the units', () => {
  beforeAll(() => {
    for (const unit of UNITS) {
      const text = readFileSync(`deploy/systemd/${unit}`, 'utf8')
      writeFileSync(join(folder, unit), text.replaceAll(INSTALLED, `${process.cwd()}/`))
    }
  })

  test.each([...UNITS, 'signalbox-agent@desk-1.service'])('%s: systemd has nothing to say against it', async (unit) => {
    const { stdout, stderr } = await run('systemd-analyze', ['verify', '--man=no', join(folder, unit)])
    expect(stdout + stderr).not.toContain('signalbox')
  })

  test.each(UNITS)('%s: leaves a process little of the machine', async (unit) => {
    const args = ['security', '--offline=true', '--no-pager', `--threshold=${EXPOSURE}`, join(folder, unit)]
    const { stdout } = await run('systemd-analyze', args)
    expect(stdout).toMatch(/Overall exposure level for signalbox\S*: 1\.\d OK/)
  })
})

/** What a unit starts, and which files it gets, as systemd would put them there. */
function unitOf(name: string, instance = '') {
  const text = readFileSync(`deploy/systemd/${name}`, 'utf8')
  const states = join(folder, `state${instance}`)
  const expand = (line: string): string => line.replaceAll('%S', states).replaceAll('%i', instance)
  const values = (key: string): string[] =>
    [...text.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value]) => expand(value as string))
  const [workdir = ''] = values('WorkingDirectory')
  mkdirSync(workdir, { recursive: true, mode: 0o700 })
  const variables = values('Environment').flatMap((line) =>
    line.split(' ').map((pair) => pair.split('=') as [string, string]),
  )
  const env = Object.fromEntries(variables)
  const [program, main, ...args] = (values('ExecStart')[0] as string)
    .split(' ')
    .map((word) => word.replace(/\$\{(\w+)\}/, (_, variable) => env[variable] as string))
  return {
    program,
    main,
    args,
    env,
    cwd: workdir,
    credentials: values('LoadCredential').map((line) => line.split(':')[0] as string),
  }
}

/** A folder as systemd makes it for a service; a file ends with a line break, as an editor leaves it. */
function credentials(name: string, given: Record<string, string>): string {
  const path = join(folder, name)
  mkdirSync(path)
  for (const [id, value] of Object.entries(given)) {
    writeFileSync(join(path, id), `${value}\n`)
    chmodSync(join(path, id), 0o400)
  }
  return path
}

describe('what the units start', () => {
  let database: TestDatabase
  beforeAll(async () => {
    database = await createTestDatabase()
  })
  afterAll(() => database.drop())

  test('the server takes its secrets from the credentials of the unit, and a variable counts for more', async () => {
    const unit = unitOf('signalbox.service')
    expect([unit.program, unit.main]).toEqual([`${INSTALLED}node_modules/.bin/node`, `${INSTALLED}cli/main.ts`])
    const given = { DATABASE_URL: database.url, ADMIN_TOKEN }
    expect(unit.credentials).toEqual(expect.arrayContaining(Object.keys(given)))
    const env = {
      ...unit.env,
      CREDENTIALS_DIRECTORY: credentials('server', { ...given, HTTP_PORT: 'not a port' }),
      HTTP_PORT: '0',
      MQTT_PORT: '0',
      MQTT_WS_PORT: '0',
    }
    const server = start(unit.args, { env, cwd: unit.cwd })
    await until(
      () => {
        if (server.process.exitCode !== null) throw new Error(server.output.stderr)
        return server.output.stdout.includes('ready')
      },
      'ready',
      30_000,
    )
    const [, http] = /HTTP API +(\S+)$/m.exec(server.output.stdout) ?? []
    const { status } = await fetch(`${http}/principals`, { headers: { authorization: `Bearer ${ADMIN_TOKEN}` } })
    expect(status).toBe(200)
    expect(server.output.stdout).not.toContain('embedded')
    server.process.kill('SIGTERM')
    expect(await server.ended).toMatchObject({ code: 0 })
  })

  test('a credential that cannot be read is a fault that names it', async () => {
    const path = join(folder, 'odd')
    mkdirSync(join(path, 'DATABASE_URL'), { recursive: true })
    const { code, stderr } = await start(['serve'], { env: { CREDENTIALS_DIRECTORY: path } }).ended
    expect(code).toBe(1)
    expect(stderr).toMatch(/CREDENTIALS_DIRECTORY: EISDIR.*\n$/)
  })

  test('the agent has its key from there, and its journal where it stays', async () => {
    const server = await startServer()
    const { body } = await server.api.post('/clients', { id: 'desk-1' })
    const unit = unitOf('signalbox-agent@.service', 'desk-1')
    expect(unit.credentials).toEqual(['SIGNALBOX_CLIENT_KEY'])
    const env = { ...unit.env, CREDENTIALS_DIRECTORY: credentials('agent', { SIGNALBOX_CLIENT_KEY: body.clientKey }) }
    const args = unit.args.map((word) => (word === 'mqtt://127.0.0.1:1883' ? server.mqtt : word))
    expect(args).toContain(server.mqtt)
    const agent = start(args, { env, cwd: unit.cwd })
    const answer = await server.api.post('/commands?wait=20', { clientId: 'desk-1', action: 'status' })
    expect(answer.body).toMatchObject({ status: 'completed' })
    agent.process.kill('SIGTERM')
    expect(await agent.ended).toMatchObject({ code: 0 })
    expect(readFileSync(join(unit.cwd, 'journal.sqlite')).length).toBeGreaterThan(0)
    await server.stop()
  })
})
