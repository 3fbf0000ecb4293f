import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { refuseSecrets } from '../support/secrets.ts'
import type { TestServer } from '../support/server.ts'
import { hasTool } from '../support/tools.ts'

/** Debian's own: another python3 may come first in PATH, and would not have Debian's packages. */
const PYTHON = '/usr/bin/python3'

const EXAMPLES = fileURLToPath(new URL('../../docs/examples/', import.meta.url))

function hasPaho(): boolean {
  if (spawnSync(PYTHON, ['-c', 'import paho.mqtt.client']).status === 0) return true
  const advice = 'paho-mqtt is missing: apt-get install python3-paho-mqtt'
  if (process.env.CI) throw new Error(advice)
  console.warn(`skipped: ${advice}`)
  return false
}

const hasShellTools = (): boolean =>
  [
    hasTool('mosquitto_sub', 'mosquitto-clients'),
    hasTool('curl', 'curl'),
    hasTool('jq', 'jq'),
    hasTool('flock', 'util-linux'),
  ].every(Boolean)

export interface Example {
  name: string
  command: string[]
  transport: 'mqtt' | 'http'
  /** Whether the server learns its journalId. */
  journal: boolean
  available: boolean
}

const shell = hasShellTools()
export const RUNNABLE: Example[] = [
  {
    name: 'shell-mqtt',
    command: ['bash', `${EXAMPLES}shell/mqtt-device.sh`],
    transport: 'mqtt',
    journal: false,
    available: shell,
  },
  {
    name: 'shell-http',
    command: ['bash', `${EXAMPLES}shell/http-device.sh`],
    transport: 'http',
    journal: true,
    available: shell,
  },
  {
    name: 'python',
    command: [PYTHON, `${EXAMPLES}python/device.py`],
    transport: 'mqtt',
    journal: true,
    available: hasPaho(),
  },
  {
    name: 'javascript',
    command: [process.execPath, `${EXAMPLES}javascript/device.mjs`],
    transport: 'mqtt',
    journal: true,
    available: true,
  },
]

/** An example as a process of its own, in a directory of its own that outlives it. */
export interface DeviceProcess {
  start(): void
  /** SIGKILL, to it and all that it started and did not detach. */
  kill(): Promise<void>
  /** What the action `pick` did in the world, one payload per line. */
  picked(): unknown[]
  /** All it printed, for the message of a failing test. */
  output(): string
  remove(): Promise<void>
}

export function createDeviceProcess(
  { command }: Example,
  server: Pick<TestServer, 'http' | 'mqttPort'>,
  clientId: string,
  key: string,
): DeviceProcess {
  const directory = mkdtempSync(join(tmpdir(), `signalbox-${clientId}-`))
  let child: ChildProcess | undefined
  let output = ''
  const kill = async (): Promise<void> => {
    if (!child?.pid || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    process.kill(-child.pid, 'SIGKILL')
    await exited
  }
  return {
    start() {
      child = spawn(command[0] as string, command.slice(1), {
        cwd: directory,
        detached: true,
        stdio: ['ignore', 'pipe', 'pipe'],
        env: {
          ...process.env,
          SIGNALBOX_CLIENT_ID: clientId,
          SIGNALBOX_CLIENT_KEY: key,
          SIGNALBOX_URL: server.http,
          MQTT_PORT: String(server.mqttPort),
        },
      })
      for (const stream of [child.stdout, child.stderr]) {
        stream?.on('data', (chunk: Buffer) => {
          output += chunk
        })
      }
    },
    kill,
    picked() {
      try {
        const lines = readFileSync(join(directory, 'picked.log'), 'utf8').trim().split('\n')
        return lines.map((line) => JSON.parse(line))
      } catch {
        return []
      }
    },
    output: () => output,
    async remove() {
      await kill()
      rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
      refuseSecrets(output, `what ${clientId} printed`)
    },
  }
}
