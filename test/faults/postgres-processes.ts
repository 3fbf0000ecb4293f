import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../support/until.ts'

/** A server that is there and does nothing: connections are accepted by the kernel, and nobody answers. */
export interface Frozen {
  processes: number
  thaw(): void
}

/** Stops the postmaster and every child of it; resolves when each has come to rest. */
export async function freeze(postmaster: number): Promise<Frozen> {
  // The postmaster first: it makes no further children.
  process.kill(postmaster, 'SIGSTOP')
  await until(() => stateOf(postmaster) === 'T', 'the postmaster stopped')
  const children = childrenOf(postmaster)
  for (const child of children) signal(child, 'SIGSTOP')
  await until(() => children.every((child) => 'TZX?'.includes(stateOf(child))), 'its children stopped')
  return {
    processes: children.length + 1,
    thaw() {
      for (const child of children) signal(child, 'SIGCONT')
      process.kill(postmaster, 'SIGCONT')
    },
  }
}

/** Resolves when this process is no more, or waits only for its parent to hear of it. */
export async function gone(pid: number): Promise<void> {
  while (!'ZX?'.includes(stateOf(pid))) await sleep(2)
}

/** It may have ended by itself meanwhile. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

function childrenOf(parent: number): number[] {
  const pids = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
  return pids.filter((pid) => fieldsOf(pid)?.[1] === String(parent))
}

const stateOf = (pid: number): string => fieldsOf(pid)?.[0] ?? '?'

/** What follows the name in /proc/PID/stat: state, parent, and so on. */
function fieldsOf(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}

/** What a process holds in memory now, MiB. */
export function memoryOf(pid: number): number {
  const kilobytes = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kilobytes) / 1024
}
