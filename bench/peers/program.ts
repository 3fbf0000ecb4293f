import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createConnection } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** A program of the system that runs as a peer. */
export interface Program extends AsyncDisposable {
  pid: number
}

const READY_LIMIT_MS = 10_000

/** Its path, also where Debian puts what only root's PATH has; undefined if it is not installed. */
export function locate(program: string): string | undefined {
  const found = spawnSync('sh', ['-c', 'PATH="$PATH:/usr/sbin"; command -v "$0"', program], { encoding: 'utf8' })
  return found.status === 0 ? found.stdout.trim() : undefined
}

/** Starts it and waits until it takes connections. Throws what it printed if it does not. */
export async function startProgram(
  program: string,
  args: string[],
  where: { path: string } | { port: number; host: string },
): Promise<Program> {
  const child = spawn(locate(program) as string, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (printed += chunk))
  const exited = once(child, 'exit')
  const deadline = performance.now() + READY_LIMIT_MS
  while (!(await accepts(where))) {
    if (child.exitCode !== null || performance.now() > deadline) {
      child.kill('SIGKILL')
      throw new Error(`${program} did not start:\n${printed}`)
    }
    await sleep(20)
  }
  return {
    pid: child.pid as number,
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await exited
    },
  }
}

async function accepts(where: { path: string } | { port: number; host: string }): Promise<boolean> {
  const socket = createConnection(where)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
