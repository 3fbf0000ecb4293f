import { mkdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { Addresses } from '../app.ts'
import { connectApi } from './api-client.ts'
import { connectDevices, DEVICES, type DemoDevice, spawnDevices, ZONES } from './demo/devices.ts'
import { judge, readJournals } from './demo/judge.ts'
import * as scenes from './demo/scenes.ts'
import { startServers } from './demo/servers.ts'
import { type Say, startStory, until } from './demo/story.ts'
import { EXIT, NotDoneError, reasonOf } from './failures.ts'
import { addressOf, openRelay, throughRelay } from './relay.ts'
import { settingsFromEnvironment } from './settings.ts'

export interface DemoOptions {
  keep?: true
  reset?: true
  /** Servers with one database. */
  nodes?: number
}

/** The zone whose network fails: its devices reach the broker through a relay. */
const CUT_ZONE = 'C'

/**
 * The main job, end to end: a server, eight devices in processes of their own, commands to one, to a zone and to all, one
 * cancelled, one through a network failure; then every execution is judged by the devices' own records.
 * Each run has a directory of its own below DATA_DIR/demo. Exit code 0 only if every execution is accounted for.
 */
export async function demo(options: DemoOptions): Promise<void> {
  const base = join(resolve(settingsFromEnvironment().DATA_DIR), 'demo')
  if (options.reset) rmSync(base, { recursive: true, force: true })
  const directory = join(base, `${new Date().toISOString().replaceAll(/[:.]/g, '-')}-${process.pid}`)
  mkdirSync(directory, { recursive: true })

  const running = new AsyncDisposableStack()
  const interrupted = Promise.withResolvers<void>()
  let stopping = false
  process.once('SIGINT', () => {
    stopping = true
    interrupted.resolve()
    if (!options.keep) void running.disposeAsync().finally(() => process.exit(EXIT.interrupted))
  })
  try {
    const say = startStory()
    const proved = await play(running, directory, say, options.nodes ?? 1)
    if (options.keep && !stopping) {
      say('running until Ctrl-C')
      await interrupted.promise
    }
    await running.disposeAsync()
    if (!proved) throw new NotDoneError(`the demo is not proved; everything it left is in ${directory}`)
    // The ledger of a run that was proved has nothing more to tell; the devices' records stay.
    rmSync(join(directory, 'postgres'), { recursive: true, force: true })
  } catch (error) {
    if (stopping) return
    await running.disposeAsync()
    throw error instanceof NotDoneError ? error : new NotDoneError(`demo: ${reasonOf(error)}`)
  }
}

async function play(running: AsyncDisposableStack, directory: string, say: Say, nodes: number): Promise<boolean> {
  const devices = spawnDevices(directory)
  running.defer(() => {
    for (const device of devices.values()) device.kill('SIGKILL')
  })
  const servers = await startServers(running, directory, nodes)
  const [first] = servers
  const token = first.newAdminToken as string
  introduce(say, { ...first, token }, servers.slice(1))

  const api = connectApi({ url: first.http, token })
  const stage = { api, say }
  await scenes.registerActions(stage)
  // Zone by zone in turn: each command but those to one client concerns several nodes.
  const serverOf = (zone: DemoDevice['zone']): string => (servers[ZONES.indexOf(zone) % servers.length] ?? first).mqtt
  const relay = running.use(await openRelay(addressOf(serverOf(CUT_ZONE))))
  await connectDevices(api, devices, ({ zone }) =>
    zone === CUT_ZONE ? throughRelay(serverOf(zone), relay) : serverOf(zone),
  )
  const where = nodes > 1 ? `, spread over ${nodes} nodes; all commands are sent to the first` : ''
  say(
    `devices: ${DEVICES.length} online, each a process of its own, two in each of the zones ${ZONES.join(', ')}${where}`,
  )

  const played = [
    await scenes.toOneClient(stage),
    await scenes.toZone(stage),
    await scenes.toEverybody(stage),
    await scenes.cancelled(stage),
    await scenes.throughACut(stage, relay),
  ]
  const acknowledged = (): boolean => readJournals(directory).every((entry) => entry.reported === 1)
  await until(acknowledged, 'the devices had reports left')
  const { executions, completed, effects, faults } = await judge(api, played, directory)
  for (const fault of faults) say(`NOT TRUE: ${fault}`)
  if (faults.length > 0) return false
  say(
    `ledger, journals and effects agree: ${executions} executions, ${completed} completed, ${executions - completed} cancelled`,
  )
  say(`${effects} effects on the devices, none twice, none missing; their records are in ${directory}`)
  return true
}

interface Introduction {
  http: string
  mqtt: string
  mqttWebSocket: string
  database: string
  token: string
}

/** Everything needed to look on from another terminal. */
function introduce(say: Say, { http, mqtt, mqttWebSocket, database, token }: Introduction, others: Addresses[]): void {
  const { host, port } = addressOf(mqtt)
  say(`server: ${http}/api, ${mqtt}, ${mqttWebSocket}, PostgreSQL inside`)
  for (const other of others) say(`another node: ${other.http}/api, ${other.mqtt}, the same database, one Redis`)
  say('look on from another terminal (with --keep as long as you like):')
  console.log(`  export SIGNALBOX_URL=${http} SIGNALBOX_TOKEN=${token}`)
  console.log(`  mosquitto_sub -h ${host} -p ${port} -u admin -P ${token} -v -t 'signalbox/v1/#'`)
  console.log(`  psql '${database}' -c 'select client_id, status, attempt, command_id from executions order by 4, 1'`)
}
