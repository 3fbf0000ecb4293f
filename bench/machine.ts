import { execFileSync } from 'node:child_process'
import { cpus, loadavg, release, totalmem } from 'node:os'

/** What the figures were measured on. */
export interface Machine {
  cores: number
  processor: string
  memoryGiB: number
  kernel: string
  node: string
  openFiles: number
  loadBefore: number
}

export function describeMachine(): Machine {
  return {
    cores: cpus().length,
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    openFiles: openFileLimit(),
    loadBefore: Number(loadavg()[0]?.toFixed(2)),
  }
}

/** Of each process that is started from here. */
export const openFileLimit = (): number => {
  const limit = execFileSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).trim()
  return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit)
}

export const inWords = ({ cores, processor, memoryGiB, kernel, node, openFiles, loadBefore }: Machine): string =>
  `${cores} cores (${processor}), ${memoryGiB} GiB, Linux ${kernel}, Node ${node}, ${openFiles} open files per process, load before ${loadBefore}`
