import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { ServerProcess } from './server-process.ts'
import { until } from './until.ts'

/** For a server's environment: as the unit and the image start it. */
export const AS_DEPLOYED = { NODE_OPTIONS: '--max-semi-space-size=2' }

/** What the kernel counts as the process's, in MB. */
export const residentMb = ({ pid }: ChildProcess): number =>
  Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024

/** Until it no longer falls or rises: what was put off while the server started is done. */
export async function settledMb(server: ServerProcess): Promise<number> {
  let last = residentMb(server.process)
  let same = 0
  await until(async () => {
    await server.api.get('/health/live')
    const now = residentMb(server.process)
    same = Math.abs(now - last) < 0.2 ? same + 1 : 0
    last = now
    return same >= 50
  }, 'the memory settles')
  return last
}
