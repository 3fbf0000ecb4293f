import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { learnSecrets, refuseSecrets } from '../../support/secrets.ts'
import { ADMIN_TOKEN, type TestServer } from '../../support/server.ts'

/** Compiled once, not once per run: half of a short run's time. */
const NODE_COMPILE_CACHE = join(tmpdir(), 'signalbox-test-compile-cache')
const MAIN = fileURLToPath(new URL('../../../cli/main.ts', import.meta.url))

export interface Run {
  /** Null when a signal ended it. */
  code: number | null
  stdout: string
  stderr: string
}

export interface Running {
  process: ChildProcess
  /** What it has written so far. */
  output: Pick<Run, 'stdout' | 'stderr'>
  ended: Promise<Run>
}

export interface RunOptions {
  env?: Record<string, string>
  stdin?: string
  cwd?: string
}

/** The real binary in a process of its own, its streams piped: `start('send', '--zone', 'A')`. */
export function start(args: string[], { env = {}, stdin = '', cwd }: RunOptions = {}): Running {
  const { SIGNALBOX_URL: _, SIGNALBOX_TOKEN: __, NO_COLOR: ___, ...inherited } = process.env
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { ...inherited, NODE_COMPILE_CACHE, ...env },
    cwd,
    stdio: 'pipe',
  })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  child.stdin.on('error', () => undefined)
  child.stdin.end(stdin)
  const ended = once(child, 'close').then(([code]): Run => {
    // What it made itself it may show, once, on stdout; what others knew before, and what is a log, it may not.
    refuseSecrets(output.stdout, 'stdout of a command')
    learnSecrets(output.stdout)
    refuseSecrets(output.stderr, 'stderr of a command')
    return { code, ...output }
  })
  // Not everybody waits for the end.
  ended.catch(() => undefined)
  return { process: child, output, ended }
}

export const run = (args: string[], options?: RunOptions): Promise<Run> => start(args, options).ended

export interface Cli {
  env: Record<string, string>
  /** `cli('clients list')`; an argument with spaces as one of `more`. */
  (line: string, ...more: string[]): Promise<Run>
  /** The one document on stdout; the run must have ended with 0. */
  // biome-ignore lint/suspicious/noExplicitAny: tests read fields of many shapes and assert on them
  json(line: string, ...more: string[]): Promise<any>
}

/** The binary, told by the environment where the server is. */
export function cliFor(server: Pick<TestServer, 'http'>): Cli {
  const env = { SIGNALBOX_URL: server.http, SIGNALBOX_TOKEN: ADMIN_TOKEN }
  const cli = (line: string, ...more: string[]) => run([...line.split(' '), ...more], { env })
  const json = async (line: string, ...more: string[]) => {
    const { code, stdout, stderr } = await cli(line, ...more, '--json')
    if (code !== 0) throw new Error(`${line}: exit code ${code}: ${stderr}`)
    return JSON.parse(stdout)
  }
  return Object.assign(cli, { env, json })
}
