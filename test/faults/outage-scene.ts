import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Settings } from '../../schemas/settings.ts'
import { connectDevice } from '../support/device.ts'
import { until } from '../support/until.ts'
import { type Fleet, startFleet } from './fleet.ts'
import { type Accepted, type Load, startLoad } from './load.ts'
import { type Lookout, startLookout } from './lookout.ts'
import { createLuck, type Luck } from './luck.ts'
import { lifeOf, OUTAGES, type Outage, type OutageName, untilBack } from './outages.ts'
import { type PipeliningDevice, startPipeliningDevice } from './pipelining-device.ts'
import { mountSmallDisk, type SmallDisk } from './small-disk.ts'
import { createStand, type Stand } from './stand.ts'
import { ACTIONS } from './work.ts'

export type Sizes = {
  /** Created around each outage. */
  commands: number
  agents: number
  plain: number
  outages: number
  /** Of an outage whose length is ours. */
  seconds: number
  /** DATABASE_TIMEOUT_SECONDS. */
  timeout: number
  /** What one device says at once during an outage, unasked. */
  burst: number
}

/** A server under load, watched from all sides, whose PostgreSQL is in for trouble. */
export interface Scene {
  stand: Stand
  disk: SmallDisk | undefined
  fleet: Fleet
  device: PipeliningDevice
  lookout: Lookout
  luck: Luck
  sizes: Sizes
  /** What was accepted besides the loads. */
  own: Accepted[]
  loads: Load[]
  /** Logs in now and then, and takes nothing. */
  knocker: Login
  /** Tries to log in once when PostgreSQL falls silent, and never comes back. */
  quitter: Login
}

type Login = { clientId: string; clientKey: string }

/** What one outage was like. Times are performance.now(). */
export interface Suffered {
  name: OutageName
  begun: number
  /** It is complete from here, and ends here. */
  from: number
  end: number
  /** PostgreSQL answers. */
  back: number
  held: number
  drainedMs: number
  newWorkMs: number
  grownMiB: number
  restarted: boolean
}

const MAX_HELD = Settings.parse({}).MAX_HELD_REPORTS
const PING_MS = 250
const PONG_WITHIN_MS = 1000
const DISK_MB = 192
/** A log that soon needs room, in pieces that are not kept for later. */
const SMALL_DISK_SETTINGS = { max_wal_size: '48MB', min_wal_size: '32MB', wal_recycle: 'off' }

export async function startScene(sizes: Sizes, seed: number, onSmallDisk: boolean): Promise<Scene> {
  const settings = { DATABASE_TIMEOUT_SECONDS: sizes.timeout }
  const { stand, disk } = onSmallDisk
    ? await standOnSmallDisk(settings)
    : { stand: await createStand({ settings }), disk: undefined }
  try {
    return await peopled(stand, disk, sizes, seed)
  } catch (error) {
    await stand[Symbol.asyncDispose]()
    throw error
  }
}

async function standOnSmallDisk(settings: Record<string, unknown>): Promise<{ stand: Stand; disk: SmallDisk }> {
  const directory = await mkdtemp(join(tmpdir(), 'signalbox-faults-'))
  const disk = mountSmallDisk(join(directory, 'postgres'), DISK_MB)
  try {
    const stand = await createStand({ directory, settings, postgresSettings: SMALL_DISK_SETTINGS })
    // Disposed before the stand is: PostgreSQL ends while its disk is there, and the folder can be removed when it is not.
    stand.use({
      async [Symbol.asyncDispose]() {
        disk.free()
        if (stand.server) await stand.server.kill()
        await stand.postgres.stop()
        disk.unmount()
      },
    })
    return { stand, disk }
  } catch (error) {
    disk.unmount()
    throw error
  }
}

async function peopled(stand: Stand, disk: SmallDisk | undefined, sizes: Sizes, seed: number): Promise<Scene> {
  await stand.startServer()
  const fleet = await startFleet(stand, { agents: sizes.agents, hosts: 1, plain: sizes.plain })
  const own: Accepted[] = []
  const create = async (clientId: string): Promise<string> => {
    const key = `own-${clientId}`
    const body = { clientId, action: 'print', payload: { thinkMs: 0, fails: false } }
    const { id, delivery, total } = (await stand.api.post('/commands', body, { 'idempotency-key': key })).body
    own.push({ id, key, delivery, total })
    return id
  }
  const login = async (clientId: string): Promise<Login> => ({ clientId, clientKey: await stand.register(clientId) })
  const device = stand.use(
    await startPipeliningDevice({
      ...(await login('pipeline')),
      mqttPort: portOf(stand),
      directory: join(stand.directory, 'devices'),
      command: () => create('pipeline'),
    }),
  )
  const [knocker, quitter] = [await login('knocker'), await login('quitter')]
  const agent = fleet.orders[0]?.devices[0]
  if (!agent) throw new Error('no agent')
  const requests = requestsAbout(agent.id, agent.clientKey, await create(agent.id))
  const lookout = stand.use(startLookout(stand, { knocker, requests }))
  return { stand, disk, fleet, device, lookout, luck: createLuck(seed), sizes, own, loads: [], knocker, quitter }
}

/** Whatever the API can do; each succeeds while all is well. */
const requestsAbout = (clientId: string, token: string, commandId: string) => [
  { method: 'GET', path: `/clients/${clientId}` },
  { method: 'POST', path: `/commands/${commandId}/cancel`, body: { reason: 'too late' } },
  { method: 'GET', path: '/commands?limit=5' },
  { method: 'PUT', path: `/commands/${commandId}/status`, body: { status: 'completed', attempt: 1 }, token },
  { method: 'GET', path: `/commands/${commandId}/timeline?limit=2` },
  { method: 'PATCH', path: `/clients/${clientId}`, body: { metadata: { floor: 2 } } },
  { method: 'POST', path: `/commands/${commandId}/retry`, body: {} },
  { method: 'PUT', path: '/actions/index', body: ACTIONS.index },
  { method: 'POST', path: `/clients/${clientId}/ping`, body: {}, token },
  { method: 'POST', path: '/commands/preview', body: { zone: 'A', action: 'print' } },
  { method: 'GET', path: `/commands/${commandId}?wait=1` },
]

const portOf = (stand: Stand): number => Number(new URL(stand.mqtt).port)

/** One outage under load, from its beginning until everything is as it was. */
export async function suffer(scene: Scene, name: OutageName): Promise<Suffered> {
  const { stand, disk, fleet, device, lookout, luck, sizes, loads } = scene
  const outage: Outage = OUTAGES[name]
  const load = startLoad(stand, {
    commands: sizes.commands,
    clientIds: fleet.clientIds,
    zones: fleet.zones,
    luck,
    prefix: `load-${loads.length}`,
  })
  loads.push(load)
  await until(() => load.accepted.length >= sizes.commands / 3, 'a load under way', 60_000)
  if (outage.total) await visit(scene)
  lookout.memory.forget()
  const before = lookout.memory.now()
  const life = await lifeOf(stand)
  device.say(MAX_HELD / 2)
  // It knocks at the last moment: PostgreSQL may hear it, and nobody the answer.
  const visiting = outage.total ? visit(scene) : undefined
  const begun = performance.now()
  const giveBack = await outage.begin(stand, disk as SmallDisk)
  const from = performance.now()
  const chosenEnd = from + (outage.lasts === 'as long as chosen' ? sizes.seconds * 1000 : 0)
  await pings(device, (from + chosenEnd) / 2)
  device.say(sizes.burst)
  await sleep(Math.max(0, chosenEnd - performance.now()))
  await visiting
  const held = device.unanswered()
  const mark = device.pubacks.length + held
  const end = performance.now()
  await giveBack()
  await untilBack(stand)
  const back = performance.now()
  const [clock] = await stand.sql<{ now: Date }>('select clock_timestamp() as now')
  const [drainedMs, newWorkMs] = await Promise.all([
    // How fast devices do their work is no matter of the server's: what was said before is through.
    since(back, () => device.pubacks.length >= mark, 'a PUBACK for all that was held'),
    since(back, async () => (await stand.sql(NEW_WORK, [clock?.now])).length > 0, 'new work'),
    since(back, () => lookout.health.at(-1)?.status === 200, 'a healthy server'),
  ])
  const grownMiB = lookout.memory.highest() - before
  const restarted = (await lifeOf(stand)) > life
  await load.done
  return { name, begun, from, end, back, held, drainedMs, newWorkMs, grownMiB, restarted }
}

const NEW_WORK = `select 1 from executions e join commands c on c.id = e.command_id
  where c.created_at > $1 and e.status = 'completed' limit 1`

async function since(from: number, probe: () => boolean | Promise<boolean>, what: string): Promise<number> {
  await until(probe, what, 60_000)
  return performance.now() - from
}

/** The quitter logs in, or is refused, and goes. */
async function visit({ stand, quitter }: Scene): Promise<void> {
  const { clientId, clientKey: password } = quitter
  const visiting = await connectDevice({ mqttPort: portOf(stand) }, { clientId, password })
  visiting.drop()
}

/** With as many messages in the air as may be held, a device still gets its pings answered. */
async function pings(device: PipeliningDevice, deadline: number): Promise<void> {
  while (performance.now() < deadline) {
    device.say(MAX_HELD - device.unanswered())
    await device.ping(PONG_WITHIN_MS).catch((error: Error) => device.faults.push(error.message))
    await sleep(PING_MS)
  }
}
