import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

const MICROS_PER_TICK = 1e6 / Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }))

/** CPU time that a process has used so far, in µs. */
export function cpuMicros(pid: number): number {
  const fields = statOf(pid)
  return (Number(fields[11]) + Number(fields[12])) * MICROS_PER_TICK
}

/** The same of a process and its children: PostgreSQL has one per connection. Ended children count, by what their parent knows. */
export function cpuMicrosOfFamily(pid: number): number {
  const own = statOf(pid)
  const ended = (Number(own[13]) + Number(own[14])) * MICROS_PER_TICK
  const children = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && parentOf(name) === pid)
  return children.reduce((sum, child) => sum + cpuMicros(Number(child)), cpuMicros(pid) + ended)
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

function parentOf(pid: string): number | undefined {
  try {
    return Number(statOf(pid)[1])
  } catch {
    // It ended meanwhile.
    return undefined
  }
}
