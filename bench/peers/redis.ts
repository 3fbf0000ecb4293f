import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import type { Need } from '../scenario.ts'
import { type Program, startProgram } from './program.ts'

export const REDIS: Need = { program: 'redis-server', debianPackage: 'redis-server' }

/** Redis as BullMQ's documentation wants it in production: an append-only file, fsynced once a second, and no eviction. */
export async function startRedis(directory: string): Promise<Program & { socketPath: string }> {
  const folder = await mkdtemp(join(directory, 'redis-'))
  const socketPath = join(folder, 'socket')
  const options = {
    port: '0',
    unixsocket: socketPath,
    dir: folder,
    save: '',
    appendonly: 'yes',
    appendfsync: 'everysec',
    'maxmemory-policy': 'noeviction',
  }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const program = await startProgram(REDIS.program, args, { path: socketPath })
  return { ...program, socketPath }
}
