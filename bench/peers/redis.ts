import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Need } from '../scenario.ts'
import { type Program, startProgram } from './program.ts'

export const REDIS: Need = { program: 'redis-server', debianPackage: 'redis-server' }

/** What a Redis is used for, with the settings of whoever uses it. */
const SETTINGS = {
  /** As BullMQ's documentation wants it in production: an append-only file, fsynced once a second, and no eviction. */
  bullmq: { appendonly: 'yes', appendfsync: 'everysec', 'maxmemory-policy': 'noeviction' },
  /** As deploy/compose.yaml starts it for our nodes: nothing is kept. */
  nodes: { appendonly: 'no' },
}

export async function startRedis(
  directory: string,
  use: keyof typeof SETTINGS,
): Promise<Program & { socketPath: string }> {
  const folder = await mkdtemp(join(directory, 'redis-'))
  const socketPath = join(folder, 'socket')
  const options = { port: '0', unixsocket: socketPath, dir: folder, save: '', ...SETTINGS[use] }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const program = await startProgram(REDIS.program, args, { path: socketPath })
  return { ...program, socketPath }
}

/** What Redis itself has counted so far. */
export interface RedisCounters extends AsyncDisposable {
  /** Commands of any kind, one round trip each, but not those by which this is asked. */
  roundTrips(): Promise<number>
  /** Messages that were published. */
  messages(): Promise<number>
}

const OWN = 'info'

export async function watchRedis(socketPath: string): Promise<RedisCounters> {
  const client = new Redis(socketPath, { lazyConnect: true, maxRetriesPerRequest: 0 })
  await client.connect()
  const calls = async (counts: (command: string) => boolean): Promise<number> => {
    const lines = (await client.info('commandstats')).matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)
    return [...lines].reduce((sum, [, name, count]) => sum + (counts(String(name)) ? Number(count) : 0), 0)
  }
  return {
    roundTrips: () => calls((command) => command !== OWN),
    messages: () => calls((command) => command === 'publish'),
    async [Symbol.asyncDispose]() {
      client.disconnect()
    },
  }
}
