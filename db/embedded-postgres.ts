/**
 * Starts, watches and stops the real PostgreSQL that comes as an npm package, so that a first run needs no database.
 * Linux x64 and arm64 only; needs util-linux (`setpriv`, as root also `unshare`) and a 64-bit glibc.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import {
  createCluster,
  holderOf,
  type Launch,
  type Layout,
  layoutIn,
  makeSocketFolder,
  nativeFolder,
  PORT,
  prepareLaunch,
  readPidFile,
  removeSocketFolder,
  removeStaleLocks,
} from './embedded-postgres-cluster.ts'

export interface EmbeddedPostgres {
  /** Settings for `pg`; they stay the same when the server is started again. */
  connection: { host: string; port: number; user: string; database: string }
  /** The same as an address for `pg` and `psql`. */
  url: string
  /** Process id of the server, undefined while it does not run. */
  pid(): number | undefined
  /** Ends all connections, shuts down within 10 s, then kills. May be called more than once. */
  stop(): Promise<void>
}

interface Options {
  /** Folder of the data, the log (server.log) and all else; made if missing. */
  dataDir: string
  log: Log
  /** PostgreSQL settings that differ from ours, e.g. `{ max_connections: '100' }`. */
  settings?: Record<string, string>
}

interface Log {
  info(details: object, message: string): void
  warn(details: object, message: string): void
  error(details: object, message: string): void
}

interface Postmaster {
  child: ChildProcess
  /** Why it ended; undefined while it runs. */
  end?: string
  exited: Promise<void>
  /** Size of the server log before it started, in bytes. */
  logStart: number
}

const USER = 'signalbox'
const DATABASE = 'signalbox'
const SETTINGS = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  max_connections: '60',
  synchronous_commit: 'on',
  jit: 'off', // Compiling costs more than our short statements take.
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_checkpoints: 'off',
}
const POLL_MS = 10
const HELD_RETRY_MS = 100
const RELEASE_WAIT_MS = 5_000
const SLOW_START_MS = 5_000
const STOP_WAIT_MS = 10_000
const RETRY_MIN_MS = 500
const RETRY_MAX_MS = 10_000
const LOG_TAIL_BYTES = 4_000
/** PostgreSQL's words for: an earlier server, or a session of it, is not gone yet. */
const STILL_HELD = /lock file ".*" (already exists|is empty)|pre-existing shared memory block/

/**
 * Starts PostgreSQL on `dataDir` (made if missing) and resolves when its database takes connections, on a Unix socket
 * only. It dies with the calling thread, so call it on the main one, and is started again if it exits by itself.
 * Rejects when another server keeps holding the directory for 5 s, on an unsupported platform, and when PostgreSQL does
 * not start; the message then ends with what PostgreSQL logged.
 */
export async function startEmbeddedPostgres(options: Options): Promise<EmbeddedPostgres> {
  const { log } = options
  const native = nativeFolder()
  const layout = layoutIn(options.dataDir)
  await mkdir(layout.root, { recursive: true, mode: 0o700 })
  const host = await makeSocketFolder(layout)
  const connection = { host, port: PORT, user: USER, database: DATABASE }
  const settings = { ...SETTINGS, unix_socket_directories: `"${host.replaceAll('"', '""')}"`, ...options.settings }

  const quit = new AbortController()
  let postmaster: Postmaster | undefined
  let supervision: Promise<void> | undefined

  async function begin(launch: Launch): Promise<void> {
    const started = performance.now()
    for (;;) {
      await untilFree(layout, log, quit.signal)
      quit.signal.throwIfAborted()
      postmaster = spawnPostmaster(layout, launch, settings)
      if (await untilReady(postmaster, layout, log)) break
      const tail = logTail(layout, postmaster.logStart)
      if (!STILL_HELD.test(tail) || performance.now() - started > RELEASE_WAIT_MS) {
        throw new Error(`PostgreSQL in ${layout.root} did not start: ${postmaster.end}\n${tail}`)
      }
      await sleep(HELD_RETRY_MS)
    }
    // From here on it no longer keeps Node alive; should Node end without stop(), it goes too.
    postmaster.child.unref()
    log.info({ pid: postmaster.child.pid, ms: Math.round(performance.now() - started) }, 'PostgreSQL is ready')
  }

  async function supervise(launch: Launch): Promise<void> {
    for (let retryMs = RETRY_MIN_MS; ; retryMs = Math.min(retryMs * 2, RETRY_MAX_MS)) {
      const since = performance.now()
      await postmaster?.exited
      if (quit.signal.aborted) return
      if (performance.now() - since > RETRY_MAX_MS) retryMs = RETRY_MIN_MS
      log.error({ end: postmaster?.end, retryMs }, 'PostgreSQL exited by itself; starting it again')
      await sleep(retryMs, undefined, { ref: false, signal: quit.signal }).catch(() => {})
      await begin(launch).catch((err) => {
        if (!quit.signal.aborted) log.error({ err }, 'PostgreSQL could not be started again')
      })
    }
  }

  async function end(): Promise<void> {
    quit.abort()
    if (postmaster) await endPostmaster(postmaster, log)
    await supervision
    await removeSocketFolder(layout, host)
  }

  try {
    const launch = await prepareLaunch(layout, native)
    const made = await createCluster(layout, launch, USER)
    if (made) log.info({ dataDir: layout.root }, 'Made a new PostgreSQL cluster')
    await begin(launch)
    await ensureDatabase(connection).catch((cause) => {
      const tail = postmaster && logTail(layout, postmaster.logStart)
      throw new Error(`PostgreSQL in ${layout.root} started, but: ${cause.message}\n${tail}`, { cause })
    })
    supervision = supervise(launch)
  } catch (error) {
    await end()
    throw error
  }

  let stopped: Promise<void> | undefined
  return {
    connection,
    url: `postgres://${USER}@${encodeURIComponent(host)}:${PORT}/${DATABASE}`,
    pid: () => (postmaster?.end === undefined ? postmaster?.child.pid : undefined),
    stop() {
      stopped ??= end()
      return stopped
    },
  }
}

/** Waits for an earlier server, for instance of a Node that was killed, to finish its shutdown. */
async function untilFree(layout: Layout, log: Log, signal: AbortSignal): Promise<void> {
  const started = performance.now()
  for (let told = false; ; told = true) {
    const pid = holderOf(layout)
    if (pid === undefined) return removeStaleLocks(layout)
    if (!told) log.warn({ pid, dataDir: layout.root }, 'Waiting for an earlier PostgreSQL to end')
    if (performance.now() - started > RELEASE_WAIT_MS) {
      const advice = 'stop the Signalbox that started it, or set DATA_DIR to another directory'
      throw new Error(`The directory ${layout.root} is in use by PostgreSQL process ${pid}: ${advice}`)
    }
    await sleep(POLL_MS, undefined, { signal })
  }
}

function spawnPostmaster(layout: Layout, launch: Launch, settings: Record<string, string>): Postmaster {
  const options = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  const command = [...launch.prefix, join(launch.bin, 'postgres'), '-D', layout.cluster, ...options]
  const [program = '', ...args] = command
  // A file, not a pipe: PostgreSQL must be able to log its shutdown after Node was killed.
  const logFile = openSync(layout.log, 'a', 0o600)
  try {
    const logStart = fstatSync(logFile).size
    // Detached, as Ctrl-C would otherwise end it before Signalbox has drained.
    const child = spawn(program, args, { env: launch.env, stdio: ['ignore', logFile, logFile], detached: true })
    const { promise: exited, resolve } = Promise.withResolvers<void>()
    const postmaster: Postmaster = { child, exited, logStart }
    const ended = (end: string) => {
      postmaster.end = end
      resolve()
    }
    child.once('exit', (code, signal) => ended(signal ?? `exit code ${code}`))
    child.on('error', (error) => {
      if (child.pid === undefined) ended(error.message)
    })
    return postmaster
  } finally {
    closeSync(logFile)
  }
}

/** Resolves with false if it exits instead. No limit: the recovery after a crash takes as long as it takes. */
async function untilReady(postmaster: Postmaster, layout: Layout, log: Log): Promise<boolean> {
  const slow = setTimeout(() => log.warn({ log: layout.log }, 'PostgreSQL is slow to start'), SLOW_START_MS).unref()
  try {
    while (postmaster.end === undefined) {
      // What pg_ctl looks at. A connection alone could be to a server of another starter, which is about to win.
      const file = readPidFile(layout)
      if (file?.pid === postmaster.child.pid && file?.status === 'ready') return true
      await Promise.race([sleep(POLL_MS), postmaster.exited])
    }
    return false
  } finally {
    clearTimeout(slow)
  }
}

async function ensureDatabase(connection: EmbeddedPostgres['connection']): Promise<void> {
  const client = new pg.Client({ ...connection, database: 'postgres', ssl: false, connectionTimeoutMillis: 10_000 })
  client.on('error', () => {}) // The query that it interrupts rejects as well.
  await client.connect()
  try {
    const { rowCount } = await client.query('select from pg_database where datname = $1', [connection.database])
    if (!rowCount) await client.query(`create database ${client.escapeIdentifier(connection.database)}`)
  } finally {
    await client.end()
  }
}

async function endPostmaster(postmaster: Postmaster, log: Log): Promise<void> {
  if (postmaster.end !== undefined) return
  postmaster.child.ref()
  postmaster.child.kill('SIGINT') // Fast shutdown.
  const kill = () => {
    log.warn({ pid: postmaster.child.pid }, 'PostgreSQL does not stop; killing it')
    postmaster.child.kill('SIGKILL')
  }
  const timer = setTimeout(kill, STOP_WAIT_MS)
  await postmaster.exited
  clearTimeout(timer)
}

function logTail(layout: Layout, from: number): string {
  return readFileSync(layout.log).subarray(from).subarray(-LOG_TAIL_BYTES).toString().trim()
}
