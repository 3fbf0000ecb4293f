import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { type Running, start } from '../cli/support/run.ts'
import { createTestDatabase } from '../support/database.ts'
import { ADMIN_TOKEN, httpClient } from '../support/http.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { asTheUnitAllows, makeCredentials, readUnit, type Unit } from './support/unit.ts'

// Processes that are traced start slowly, more so on a busy machine.
vi.setConfig({ testTimeout: 90_000 })

const run = promisify(execFile)
const UNITS = ['signalbox.service', 'signalbox-agent@.service']
/** Of 100. */
const EXPOSURE = 20
const INSTALLED = '/opt/signalbox/'
const ANY_PORTS = { HTTP_PORT: '0', MQTT_PORT: '0', MQTT_WS_PORT: '0' }

const folder = mkdtempSync(join(tmpdir(), 'signalbox-systemd-'))
// The user of a unit has to reach what is below.
chmodSync(folder, 0o755)
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

describe('credentials', () => {
  test('settings come from their files, and a variable that is set counts for more', async () => {
    const database = await createTestDatabase()
    const given = { DATABASE_URL: database.url, ADMIN_TOKEN }
    expect(readUnit('signalbox.service', folder).credentials).toEqual(expect.arrayContaining(Object.keys(given)))
    const path = makeCredentials(join(folder, 'server'), { ...given, HTTP_PORT: 'not a port' })
    const server = start(['serve'], { env: { CREDENTIALS_DIRECTORY: path, DATABASE_URL: '', ...ANY_PORTS } })
    const http = await addressOf(server)
    expect((await httpClient(http, ADMIN_TOKEN).get('/principals')).status).toBe(200)
    expect(await database.query('select 1 from principals')).toHaveLength(1)
    server.process.kill('SIGTERM')
    expect(await server.ended).toMatchObject({ code: 0 })
    await database.drop()
  })

  test('one that cannot be read is a fault that names it', async () => {
    const path = join(folder, 'odd')
    mkdirSync(join(path, 'DATABASE_URL'), { recursive: true })
    const { code, stderr } = await start(['serve'], { env: { CREDENTIALS_DIRECTORY: path } }).ended
    expect(code).toBe(1)
    expect(stderr).toMatch(/CREDENTIALS_DIRECTORY: EISDIR.*\n$/)
  })
})

async function addressOf({ process: child, output }: Pick<Running, 'process' | 'output'>): Promise<string> {
  await until(
    () => {
      if (child.exitCode !== null) throw new Error(output.stderr)
      // The last of the lines that tell where it is.
      return /^ +Database .+\n/m.test(output.stdout)
    },
    'ready',
    60_000,
  )
  return /HTTP API +(\S+)\/api$/m.exec(output.stdout)?.[1] as string
}

const tools = [hasTool('strace', 'strace'), hasTool('systemd-analyze', 'systemd')]

describe.skipIf(tools.includes(false))('what the units start, with the system calls that they leave', () => {
  const work = mkdtempSync(join(folder, 'work-'))
  // strace writes there as the user of the unit.
  chmodSync(work, 0o777)
  const children: ChildProcess[] = []
  afterAll(() => {
    for (const child of children) child.kill('SIGKILL')
  })

  function startUnit(name: string, unit: Unit, env: Record<string, string>, change = (word: string): string => word) {
    expect(unit.command.slice(0, 2)).toEqual([`${INSTALLED}node_modules/.bin/node`, `${INSTALLED}cli/main.ts`])
    const trace = join(work, `${name}.trace`)
    const command = [process.execPath, join(process.cwd(), 'cli/main.ts'), ...unit.command.slice(2).map(change)]
    const [program = '', ...args] = [...asTheUnitAllows(unit, trace), ...command]
    const child = spawn(program, args, { cwd: unit.cwd, env: { PATH: process.env.PATH, ...unit.env, ...env } })
    children.push(child)
    const output = { stdout: '', stderr: '' }
    child.stdout.on('data', (chunk: Buffer) => (output.stdout += chunk))
    child.stderr.on('data', (chunk: Buffer) => (output.stderr += chunk))
    return {
      process: child,
      output,
      /** SIGTERM to the program itself, as KillMode says; answers its exit code. */
      async stop(): Promise<number | null> {
        const exited = once(child, 'exit')
        const { stdout } = await run('pgrep', ['-P', String(child.pid)])
        process.kill(Number(stdout.trim()), 'SIGTERM')
        return (await exited)[0]
      },
      refused: (): string[] => readFileSync(trace, 'utf8').match(/^.*INJECTED.*$/gm) ?? [],
    }
  }

  test('a server with its own PostgreSQL, and an agent with its journal, do their work', async () => {
    const serverUnit = readUnit('signalbox.service', work)
    const server = startUnit('server', serverUnit, {
      ...ANY_PORTS,
      CREDENTIALS_DIRECTORY: makeCredentials(join(work, 'server'), { ADMIN_TOKEN }),
    })
    const api = httpClient(await addressOf(server), ADMIN_TOKEN)
    const mqtt = /MQTT +(mqtt:\S+)$/m.exec(server.output.stdout)?.[1] as string

    const { body } = await api.post('/clients', { id: 'desk-1' })
    const agentUnit = readUnit('signalbox-agent@.service', work, 'desk-1')
    expect(agentUnit.credentials).toEqual(['SIGNALBOX_CLIENT_KEY'])
    const path = makeCredentials(join(work, 'agent'), { SIGNALBOX_CLIENT_KEY: body.clientKey })
    const agent = startUnit('agent', agentUnit, { CREDENTIALS_DIRECTORY: path }, (word) =>
      word === agentUnit.env.AGENT_URL ? mqtt : word,
    )
    const answer = await api.post('/commands?wait=60', { clientId: 'desk-1', action: 'status' })
    expect(answer.body, agent.output.stderr).toMatchObject({ status: 'completed' })
    expect(readFileSync(join(agentUnit.cwd, 'journal.sqlite')).length).toBeGreaterThan(0)

    expect(await agent.stop()).toBe(0)
    expect(await server.stop()).toBe(0)
    expect([...server.refused(), ...agent.refused()]).toEqual([])
  })
})
