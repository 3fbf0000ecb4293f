import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from '../ports.ts'
import type { Need } from '../scenario.ts'
import { type Program, startProgram } from './program.ts'

export const MOSQUITTO: Need = { program: 'mosquitto', debianPackage: 'mosquitto' }

/** Mosquitto without authentication and without a file to keep anything in. Its answers are not held back for larger packets. */
export async function startMosquitto(directory: string): Promise<Program & { port: number }> {
  const port = await freePort()
  const file = join(await mkdtemp(join(directory, 'mosquitto-')), 'mosquitto.conf')
  await writeFile(file, `listener ${port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_type error\n`)
  const program = await startProgram(MOSQUITTO.program, ['-c', file], { port, host: '127.0.0.1' })
  return { ...program, port }
}
