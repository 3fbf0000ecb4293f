import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

const MICROS_PER_TICK = 1e6 / Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))

/** CPU time that a process has used so far, in µs. */
export function cpuMicros(pid: number): number {
  return ownMicros(statOf(pid))
}

/** The same of a process and its children: PostgreSQL has one per connection. Ended children count, by what their parent knows. */
export function cpuMicrosOfFamily(pid: number): number {
  const own = statOf(pid)
  const ended = (Number(own[13]) + Number(own[14])) * MICROS_PER_TICK
  const others = readdirSync('/proc').flatMap((name) => (/^\d+$/.test(name) ? [statIfThere(name)] : []))
  const children = others.filter((stat) => stat !== undefined).filter((stat) => Number(stat[1]) === pid)
  return children.reduce((sum, stat) => sum + ownMicros(stat), ownMicros(own) + ended)
}

/** Memory that a process occupies, in MiB. */
export function memoryMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024
}

/** The fields of /proc/PID/stat after the name, which may hold blanks: see proc_pid_stat(5), field 3 is [0]. */
function statOf(pid: number | string): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

function statIfThere(pid: string): string[] | undefined {
  try {
    return statOf(pid)
  } catch {
    // It ended meanwhile.
    return undefined
  }
}

const ownMicros = (stat: string[]): number => (Number(stat[11]) + Number(stat[12])) * MICROS_PER_TICK
