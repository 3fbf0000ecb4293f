import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Addresses, createApp, startDatabase } from '../../app.ts'
import { parseSettings, type Settings } from '../../schemas/settings.ts'
import { NotDoneError } from '../failures.ts'
import { until } from './story.ts'

/** The demo's servers; all but a single one share a PostgreSQL and a Redis. */
export async function startServers(
  running: AsyncDisposableStack,
  directory: string,
  count: number,
): Promise<[Addresses, ...Addresses[]]> {
  const alone = parseSettings({ DATA_DIR: directory, HTTP_PORT: 0, MQTT_PORT: 0, MQTT_WS_PORT: 0, LOG_LEVEL: 'warn' })
  if (count === 1) return [await startOne(running, alone)]
  const REDIS_URL = await startRedis(running)
  const database = await startDatabase(alone, count)
  running.defer(() => database.stop())
  const shared = { ...alone, DATABASE_URL: database.url, REDIS_URL }
  const first = await startOne(running, shared)
  const others: Addresses[] = []
  while (others.length < count - 1) others.push(await startOne(running, shared))
  return [first, ...others]
}

async function startOne(running: AsyncDisposableStack, settings: Settings): Promise<Addresses> {
  const app = createApp(settings)
  const addresses = await app.start()
  running.defer(() => app.stop())
  return addresses
}

/** Debian's, on a socket in a folder of its own, and gone with this process; answers what REDIS_URL says then. */
async function startRedis(running: AsyncDisposableStack): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'signalbox-redis-'))
  running.defer(() => rmSync(folder, { recursive: true, force: true }))
  const socket = join(folder, 'redis.sock')
  const redis = [
    'redis-server',
    '--port',
    '0',
    '--unixsocket',
    socket,
    '--save',
    '',
    '--appendonly',
    'no',
    '--dir',
    folder,
  ]
  // Detached: Ctrl-C is for this process, which needs Redis until its servers have stopped.
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', ...redis], { stdio: 'ignore', detached: true })
  let ended: string | undefined
  child.once('error', ({ message }) => {
    ended = message
  })
  child.once('exit', (code, signal) => {
    ended ??= `it ended with ${signal ?? code}`
  })
  running.defer(async () => {
    if (ended !== undefined) return
    child.kill('SIGTERM')
    await once(child, 'exit')
  })
  await until(async () => existsSync(socket) || ended !== undefined, 'redis-server does not start')
  if (ended === undefined) return socket
  throw new NotDoneError(`demo: several nodes need redis-server (apt-get install redis-server): ${ended}`)
}
