import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectAsync, type MqttClient } from 'mqtt'
import { freePort } from '../../../bench/ports.ts'
import { type Run, run } from '../../cli/support/run.ts'
import { ADMIN_TOKEN } from '../../support/http.ts'
import { until } from '../../support/until.ts'

const LISTENER = /^listener 1884 127\.0\.0\.1$/gm

/** A folder with the committed files in it, the port aside, which has to be free. */
export interface Folder {
  path: string
  port: number
  /** `signalbox tokens bridge` in it, by the real binary. */
  writeBridge(server: { http: string; mqttPort: number }, ...options: string[]): Promise<Run>
  remove(): void
}

export async function createFolder(): Promise<Folder> {
  const path = mkdtempSync(join(tmpdir(), 'signalbox-mosquitto-'))
  // Started by root, Mosquitto is the user `mosquitto` when it opens its list of who may do what.
  chmodSync(path, 0o755)
  const port = await freePort()
  const committed = readFileSync('mosquitto.conf', 'utf8')
  if (committed.match(LISTENER)?.length !== 1) throw new Error('mosquitto.conf has another listener than this replaces')
  writeFileSync(join(path, 'mosquitto.conf'), committed.replace(LISTENER, `listener ${port} 127.0.0.1`))
  cpSync('mosquitto.acl', join(path, 'mosquitto.acl'))
  cpSync('mosquitto.d/.gitignore', join(path, 'mosquitto.d/.gitignore'))
  return {
    path,
    port,
    writeBridge: (server, ...options) =>
      run(['tokens', 'bridge', '--mqtt', `mqtt://127.0.0.1:${server.mqttPort}`, ...options], {
        env: { SIGNALBOX_URL: server.http, SIGNALBOX_TOKEN: ADMIN_TOKEN },
        cwd: path,
      }),
    remove: () => rmSync(path, { recursive: true }),
  }
}

export interface Mosquitto {
  process: ChildProcess
  /** What it has written so far. */
  readonly log: string
  stop(): Promise<void>
}

/** `mosquitto -c mosquitto.conf`, as the file says; ready when its port answers. */
export async function startMosquitto({ path, port }: Folder): Promise<Mosquitto> {
  const child = spawn('mosquitto', ['-c', 'mosquitto.conf'], { cwd: path, stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = once(child, 'exit')
  let log = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      log += chunk
    })
  }
  await until(() => {
    if (child.exitCode !== null) throw new Error(`mosquitto ended with ${child.exitCode}: ${log}`)
    return answers(port)
  }, 'mosquitto')
  return {
    process: child,
    get log() {
      return log
    },
    async stop() {
      child.kill()
      await ended
    },
  }
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })

export interface Seen {
  topic: string
  payload: string
  retain: boolean
}

/** A technician's tool on the technicians' broker, as MQTTX or MQTT Explorer connect. */
export async function lookOn(
  { port }: Folder,
  protocolVersion: 4 | 5,
): Promise<{ client: MqttClient; seen: Seen[]; last(topic: string): Seen | undefined }> {
  const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { protocolVersion })
  const seen: Seen[] = []
  client.on('message', (topic, payload, { retain }) => seen.push({ topic, payload: payload.toString(), retain }))
  await client.subscribeAsync(['signalbox/v1/#', '$SYS/broker/connection/#'], { qos: 1 })
  return { client, seen, last: (topic) => seen.findLast((one) => one.topic === topic) }
}

/** Waits until the tool sees whether the bridge is connected. */
export const untilBridge = ({ seen }: { seen: Seen[] }, state: '0' | '1'): Promise<unknown> =>
  until(
    () => seen.findLast(({ topic }) => /^\$SYS\/broker\/connection\/.+\/state$/.test(topic))?.payload === state,
    `bridge ${state === '1' ? 'connected' : 'cut'}`,
  )
