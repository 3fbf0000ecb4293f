import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const IS_ROOT = process.getuid?.() === 0
/** Who stands for the user of a unit, if we may become somebody else. */
const NOBODY = 65_534

/** A unit as systemd reads it: its state below `folder`, its instance's name in place. */
export interface Unit {
  /** Program and arguments, variables in their places. */
  command: string[]
  env: Record<string, string>
  /** Made, and its user's alone. */
  cwd: string
  /** The names of the credentials that it asks for. */
  credentials: string[]
  /** Names and groups of system calls, `~` before those that are taken away again. */
  systemCalls: string[]
}

export function readUnit(name: string, folder: string, instance = ''): Unit {
  const text = readFileSync(`deploy/systemd/${name}`, 'utf8')
  const expand = (line: string): string => line.replaceAll('%S', join(folder, 'state')).replaceAll('%i', instance)
  const values = (key: string): string[] =>
    [...text.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, value]) => expand(value as string))
  const words = (key: string): string[] => values(key).flatMap((line) => line.split(' '))
  const env = Object.fromEntries(
    words('Environment').map((pair) => /^(\w+)=(.*)$/.exec(pair)?.slice(1) as [string, string]),
  )
  const cwd = words('WorkingDirectory')[0] as string
  mkdirSync(cwd, { recursive: true })
  chmodSync(cwd, 0o700)
  if (IS_ROOT) chownSync(cwd, NOBODY, NOBODY)
  return {
    command: words('ExecStart').map((word) => word.replace(/\$\{(\w+)\}/, (_, variable) => env[variable] as string)),
    env,
    cwd,
    credentials: words('LoadCredential').map((line) => line.split(':')[0] as string),
    systemCalls: words('SystemCallFilter'),
  }
}

/** A folder as systemd makes it for a service; a file ends with a line break, as an editor leaves it. */
export function makeCredentials(path: string, given: Record<string, string>): string {
  mkdirSync(path)
  for (const [id, value] of Object.entries(given)) {
    writeFileSync(join(path, id), `${value}\n`)
    chmodSync(join(path, id), 0o444)
  }
  return path
}

/** What runs a program as the unit lets it: without capabilities, and every system call that is filtered out fails with EPERM. */
export function asTheUnitAllows({ systemCalls }: Unit, trace: string): string[] {
  const allowed = new Set<string>()
  for (const word of systemCalls) {
    for (const call of expandCalls(word.replace('~', ''))) {
      if (word.startsWith('~')) allowed.delete(call)
      else allowed.add(call)
    }
  }
  const others = `!${[...allowed].map((call) => `?${call}`).join()}`
  const filter = ['strace', '-f', '--seccomp-bpf', '-qq', '-o', trace]
  filter.push('-e', `trace=${others}`, '-e', `inject=${others}:error=EPERM`)
  const nobody = [
    'setpriv',
    `--reuid=${NOBODY}`,
    `--regid=${NOBODY}`,
    '--clear-groups',
    '--no-new-privs',
    '--bounding-set=-all',
  ]
  return IS_ROOT ? [...nobody, ...filter] : filter
}

/** A group's system calls, as this machine's systemd knows them. */
function expandCalls(word: string): string[] {
  if (!word.startsWith('@')) return [word]
  const text = execFileSync('systemd-analyze', ['syscall-filter', '--no-pager', word], { encoding: 'utf8' })
  const entries = text.split('\n').filter((line) => /^\s+[@a-z_]/.test(line))
  return entries.flatMap((line) => expandCalls(line.trim()))
}
