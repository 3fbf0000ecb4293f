import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Passed } from '../../control/control.ts'
import type { TestDatabase } from './database.ts'
import { ADMIN_TOKEN, type Http, httpClient } from './http.ts'
import { refuseSecrets } from './secrets.ts'

export type KillPoint = Parameters<Passed>[0]

export interface ServerProcess {
  http: string
  api: Http
  url: string
  mqttPort: number
  wsPort: number
  process: ChildProcess
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
  /** Resolves when it has ended by itself, at its kill point. */
  ended(): Promise<void>
}

/**
 * The real server as a process of its own, on free ports. `killAt` names a point of a command's way where it ends itself with
 * SIGKILL.
 */
export async function startServerProcess(
  database: Pick<TestDatabase, 'url'>,
  options: {
    killAt?: KillPoint
    /** The how many-th time; default: the first. */
    killAfter?: number
    settings?: Record<string, unknown>
    env?: Record<string, string>
    /** The program that is started instead of the one in this tree. */
    program?: string
  } = {},
): Promise<ServerProcess> {
  const program = options.program ?? fileURLToPath(new URL('./killable-server.ts', import.meta.url))
  const child = spawn(process.execPath, [program], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      SETTINGS: JSON.stringify({
        DATABASE_URL: database.url,
        ADMIN_TOKEN,
        HTTP_PORT: 0,
        MQTT_PORT: 0,
        MQTT_WS_PORT: 0,
        SWEEP_INTERVAL_SECONDS: 0.1,
        LOG_LEVEL: 'error',
        ...options.settings,
      }),
      KILL_AT: options.killAt ?? '',
      KILL_AFTER: String(options.killAfter ?? 1),
      ...options.env,
    },
  })
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text
    process.stderr.write(text)
  })
  const exited = once(child, 'close').then((ended) => {
    refuseSecrets(log, 'the log of a server process')
    return ended
  })
  // It may end, with a reason of its own, before anybody waits for it.
  exited.catch(() => undefined)
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream })
  const [line] = await Promise.race([
    once(lines, 'line'),
    exited.then(([code]) => {
      throw new Error(`the server ended with ${code} before it was ready`)
    }),
  ])
  const addresses = JSON.parse(line as string) as { http: string; mqtt: string; mqttWebSocket: string }
  return {
    http: addresses.http,
    api: httpClient(addresses.http, ADMIN_TOKEN),
    url: addresses.http,
    mqttPort: Number(new URL(addresses.mqtt).port),
    wsPort: Number(new URL(addresses.mqttWebSocket).port),
    process: child,
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
    async ended() {
      await exited
    },
  }
}
