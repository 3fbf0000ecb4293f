import { execFileSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { uptime } from 'node:os'
import { join } from 'node:path'

/** A wall clock that is off by so much: `+1y`, `-1h`, `+0` for none. */
export type Offset = `${'+' | '-'}${number}${'' | 'h' | 'd' | 'y'}`

/** Where Debian's package `faketime` puts it, by machine. */
const LIBRARIES = ['x86_64-linux-gnu', 'aarch64-linux-gnu'].map(
  (machine) => `/usr/lib/${machine}/faketime/libfaketime.so.1`,
)
const library = LIBRARIES.find(existsSync)

/** Why there can be no false clocks here, if so. */
export const noFalseClocks = (): string | undefined =>
  library ? undefined : 'libfaketime is missing: apt-get install faketime'

const common = { LD_PRELOAD: library ?? '', FAKETIME_DONT_FAKE_MONOTONIC: '1' }

/** The environment of a process whose wall clock is off; its monotonic clock is right. */
export const falseClock = (offset: Offset): Record<string, string> => ({ ...common, FAKETIME: offset })

/** A clock that somebody sets while the process runs: off by what `set` said last. */
export function settableClock(
  directory: string,
  name: string,
): { env: Record<string, string>; set(offset: Offset): void } {
  const file = join(directory, `clock-${name}`)
  const set = (offset: Offset): void => writeFileSync(file, offset)
  set('+0')
  return { env: { ...common, FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: '1' }, set }
}

const LOOK = `const { uptime } = require('node:os')
console.log(JSON.stringify({ wall: Date.now(), monotonic: process.hrtime()[0], uptime: uptime() }))`

/** What a process of Node.js with this environment sees, compared with this one: how far off each of its clocks is, s. */
export function lookAtClocks(env: Record<string, string>): { wall: number; monotonic: number; uptime: number } {
  const seen = JSON.parse(execFileSync(process.execPath, ['-e', LOOK], { env: { ...process.env, ...env } }).toString())
  return {
    wall: (seen.wall - Date.now()) / 1000,
    monotonic: seen.monotonic - process.hrtime()[0],
    uptime: seen.uptime - uptime(),
  }
}
