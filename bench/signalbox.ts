import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const PROGRAM = fileURLToPath(new URL('../cli/main.ts', import.meta.url))
export const ADMIN_TOKEN = 'sbt_benchmark-administrator-0123456789'

/** Our server as anybody starts it, `signalbox serve`, with its defaults but for the ports. */
export interface Server extends AsyncDisposable {
  pid: number
  http: string
  mqttPort: number
}

interface ServerOptions {
  databaseUrl: string
  /** Settings beside those. */
  settings?: Record<string, string>
  /** Its log goes there: it is what a user has, so it is not switched off. */
  logFile: string
  /** Where its CPU profile is to be written when it stops. */
  profile?: { directory: string; name: string } | undefined
}

export async function startSignalbox({ databaseUrl, settings, logFile, profile }: ServerOptions): Promise<Server> {
  const profiling = profile
    ? ['--cpu-prof', `--cpu-prof-dir=${profile.directory}`, `--cpu-prof-name=${profile.name}.cpuprofile`]
    : []
  const log = openSync(logFile, 'a')
  const child = spawn(process.execPath, [...profiling, PROGRAM, 'serve'], {
    stdio: ['ignore', 'pipe', log],
    // Nothing is inherited: a setting of whoever runs this would be one.
    env: {
      DATABASE_URL: databaseUrl,
      ADMIN_TOKEN,
      HTTP_PORT: '0',
      MQTT_PORT: '0',
      MQTT_WS_PORT: '0',
      ...settings,
    },
  })
  closeSync(log)
  const exited = once(child, 'exit')
  const printed = await outputUntil(child, /Database {2}/)
  const address = (label: string): URL => new URL(new RegExp(`${label} +(\\S+)`).exec(printed)?.[1] as string)
  if (!/HTTP API/.test(printed)) {
    throw new Error(`the server did not start:\n${printed}\n${readFileSync(logFile, 'utf8').slice(-2000)}`)
  }
  return {
    pid: child.pid as number,
    http: address('HTTP API').origin,
    mqttPort: Number(address('MQTT').port),
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await exited
    },
  }
}

/** What it printed until that came, or all of it if it ended before. */
async function outputUntil(child: ChildProcess, sought: RegExp): Promise<string> {
  let printed = ''
  for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
    printed += chunk
    if (sought.test(printed)) break
  }
  return printed
}
