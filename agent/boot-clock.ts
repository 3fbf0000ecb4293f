import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'

/** A clock that nobody sets and that goes on counting while the agent's process is restarted. */
export interface BootClock {
  /** Times of different boots cannot be compared. */
  bootId: string
  /** Milliseconds since some moment of this boot. */
  now(): number
}

/**
 * The clock of this machine. Linux: time since boot, counting sleep (CLOCK_MONOTONIC, which `process.hrtime` reads,
 * stands still in suspend, so a device that slept for a day would still start yesterday's command).
 * Elsewhere a boot cannot be recognised: each process is its own boot.
 */
export function systemBootClock(): BootClock {
  const bootId = readBootId()
  if (bootId === undefined) return { bootId: `process-${randomUUID()}`, now: () => performance.now() }
  return { bootId, now: () => uptime() * 1000 }
}

function readBootId(): string | undefined {
  if (process.platform !== 'linux') return undefined
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() || undefined
  } catch {
    return undefined
  }
}
