import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Settings } from '../../../schemas/settings.ts'
import { connectDevice } from '../../support/device.ts'
import { until } from '../../support/until.ts'
import { judgeStand } from '../evidence.ts'
import { type Fleet, startFleet } from '../fleet.ts'
import { type Accepted, type Load, startLoad } from '../load.ts'
import { type Lookout, startLookout } from '../lookout.ts'
import { createLuck, type Luck } from '../luck.ts'
import { lifeOf, OUTAGES, type Outage, type OutageName, untilBack } from '../outages.ts'
import { type PipeliningDevice, startPipeliningDevice } from '../pipelining-device.ts'
import { type Context, type Figures, type Scenario, scenario, Violations } from '../scenario.ts'
import { mountSmallDisk, type SmallDisk } from '../small-disk.ts'
import { createStand, type Stand } from '../stand.ts'
import { ACTIONS } from '../work.ts'

type Sizes = {
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

interface Scene {
  stand: Stand
  fleet: Fleet
  device: PipeliningDevice
  lookout: Lookout
  luck: Luck
  sizes: Sizes
  loads: Load[]
  /** A client that tries to log in once while PostgreSQL hears nothing, and never comes back. */
  quitter: Login
}

type Login = { clientId: string; clientKey: string }

/** What one outage was like. Times are performance.now(). */
interface Seen {
  name: OutageName
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

/** An answer comes within DATABASE_TIMEOUT_SECONDS and this. */
const GRACE_MS = 1500
/** Once PostgreSQL is back, what waited is through and new work flows. */
const DRAINS_WITHIN_MS = 10_000
/** What the server may grow by during an outage. */
const MEMORY_MIB = 96
/** What was committed just before is still on its way out. */
const STILL_ON_ITS_WAY_MS = 500
const MAX_HELD = Settings.parse({}).MAX_HELD_REPORTS

async function run(names: OutageName[], sizes: Sizes, { seed, say }: Context): Promise<Figures> {
  const onDisk = names.some((name) => name.startsWith('no room'))
  const directory = await mkdtemp(join(tmpdir(), 'signalbox-faults-'))
  const disk = onDisk ? mountSmallDisk(join(directory, 'postgres'), DISK_MB) : undefined
  await using stand = await createStand({
    directory,
    settings: { DATABASE_TIMEOUT_SECONDS: sizes.timeout },
    ...(onDisk ? { postgresSettings: SMALL_DISK_SETTINGS } : {}),
  })
  if (disk) stand.use(endedOn(disk, stand))
  await stand.startServer()
  const luck = createLuck(seed)
  const fleet = await startFleet(stand, { agents: sizes.agents, hosts: 1, plain: sizes.plain })
  const own: Accepted[] = []
  const create = async (clientId: string): Promise<string> => {
    const key = `own-${clientId}`
    const body = { clientId, action: 'print', payload: { thinkMs: 0, fails: false } }
    const { id, delivery, total } = (await stand.api.post('/commands', body, { 'idempotency-key': key })).body
    own.push({ id, key, delivery, total })
    return id
  }
  const device = stand.use(
    await startPipeliningDevice({
      mqttPort: Number(new URL(stand.mqtt).port),
      clientId: 'pipeline',
      clientKey: await stand.register('pipeline'),
      directory: join(stand.directory, 'devices'),
      command: () => create('pipeline'),
    }),
  )
  const [knocker, quitter] = [await visitor(stand, 'knocker'), await visitor(stand, 'quitter')]
  const [agent] = fleet.orders.flatMap(({ devices }) => devices)
  if (!agent) throw new Error('no agent')
  const requests = requestsAbout(agent.id, agent.clientKey, await create(agent.id))
  const lookout = stand.use(startLookout(stand, { knocker, requests }))
  const scene: Scene = { stand, fleet, device, lookout, luck, sizes, loads: [], quitter }

  const seen: Seen[] = []
  for (let count = 0; count < sizes.outages; count++) {
    const one = await outage(scene, names[count % names.length] as OutageName, disk as SmallDisk)
    const ms = (figure: number): string => `${Math.round(figure)} ms`
    say(
      `${one.name}: away ${ms(one.back - one.from)}, ${unavailable(lookout, one).length} answers 503, held ${one.held}, drained in ${ms(one.drainedMs)}, new work in ${ms(one.newWorkMs)}, grown by ${Math.round(one.grownMiB)} MiB`,
    )
    seen.push(one)
  }
  await lookout[Symbol.asyncDispose]()
  await device.finish()
  const wrong = [...faultsOf(scene, seen)]
  await presenceIsTrue(stand, [...fleet.clientIds, device.clientId])
  // They were targets of each broadcast and took nothing: what was not handed out ends with them.
  for (const { clientId } of [knocker, quitter]) await stand.api.send('DELETE', `/clients/${clientId}`)
  await stand.settled()
  wrong.push(...(await disorderOf(scene)))
  await fleet.stop()
  if (wrong.length > 0) throw new Violations(wrong)
  const accepted = [...own, ...scene.loads.flatMap((load) => load.accepted)]
  const judged = await judgeStand(stand, {
    load: { accepted },
    plain: [...fleet.plain, device],
    devices: {
      plain: new Set([...fleet.plainIds, device.clientId]),
      lostMemory: new Set(),
      agentsWereKilled: false,
    },
  })
  return { commands: accepted.length, ...judged, ...figuresOf(scene, seen) }
}

/** One outage under load, from its beginning until everything is as it was. */
async function outage(scene: Scene, name: OutageName, disk: SmallDisk): Promise<Seen> {
  const { stand, fleet, device, lookout, luck, sizes, loads } = scene
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
  // It knocks at the last moment: PostgreSQL may hear it, and nobody its answer.
  const visiting = outage.total ? visit(scene) : undefined
  const end = await outage.begin(stand, disk)
  const from = performance.now()
  const chosen = outage.lasts === 'as long as chosen'
  if (chosen) await pings(device, from + (sizes.seconds * 1000) / 2)
  device.say(sizes.burst)
  if (chosen) await sleep(from + sizes.seconds * 1000 - performance.now())
  await visiting
  const held = device.unanswered()
  const mark = device.pubacks.length + held
  const ended = performance.now()
  await end()
  await untilBack(stand)
  const back = performance.now()
  const [clock] = await stand.sql<{ now: Date }>('select clock_timestamp() as now')
  const now = clock?.now as Date
  const [drainedMs, newWorkMs] = await Promise.all([drained(), newWork(), healthy()])
  await load.done
  return {
    name,
    from,
    end: ended,
    back,
    held,
    drainedMs,
    newWorkMs,
    grownMiB: lookout.memory.highest() - before,
    restarted: (await lifeOf(stand)) > life,
  }

  /** Everything that was said before is through. How fast devices do their work is no matter of the server's. */
  async function drained(): Promise<number> {
    await until(() => device.pubacks.length >= mark, 'a PUBACK for all that was held', 60_000)
    return performance.now() - back
  }

  async function newWork(): Promise<number> {
    const done = `select 1 from executions e join commands c on c.id = e.command_id
      where c.created_at > $1 and e.status = 'completed' limit 1`
    await until(async () => (await stand.sql(done, [now])).length > 0, 'new work', 60_000)
    return performance.now() - back
  }

  async function healthy(): Promise<void> {
    await until(() => lookout.health.at(-1)?.status === 200, 'a healthy server', 60_000)
  }
}

const visitor = async (stand: Stand, clientId: string): Promise<Login> => ({
  clientId,
  clientKey: await stand.register(clientId),
})

/** The quitter logs in, or is refused, and goes. */
async function visit({ stand, quitter }: Scene): Promise<void> {
  const mqttPort = Number(new URL(stand.mqtt).port)
  const visiting = await connectDevice({ mqttPort }, { clientId: quitter.clientId, password: quitter.clientKey })
  visiting.drop()
}

/** With as many messages in the air as may be held, a device still gets its pings answered. */
async function pings(device: PipeliningDevice, until: number): Promise<void> {
  device.say(MAX_HELD - device.unanswered())
  while (performance.now() < until) {
    await device.ping(1000).catch((error: Error) => device.faults.push(error.message))
    await sleep(250)
  }
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

const during = ({ from, end }: Seen, one: { from: number; at: number }): boolean => one.from >= from && one.at <= end
const unavailable = (lookout: Lookout, seen: Seen) =>
  lookout.answers.filter(({ status, at }) => status === 503 && at >= seen.from && at <= seen.back + GRACE_MS)

/** What must not be, whatever happens to PostgreSQL. */
function* faultsOf({ stand, device, lookout, sizes }: Scene, outages: Seen[]): Iterable<string> {
  const limit = sizes.timeout * 1000 + GRACE_MS
  const late = ({ from, at }: { from: number; at: number }): boolean => at - from > limit
  for (const one of lookout.answers) {
    const took = `${one.what} was answered ${one.status} ${one.code ?? ''} after ${Math.round(one.at - one.from)} ms`
    const honest = one.status >= 200 && one.status < 300
    if (!honest && !(one.status === 503 && one.code === 'UNAVAILABLE')) yield took
    else if (late(one)) yield took
  }
  for (const one of lookout.health) {
    if (one.status !== 200 && one.status !== 503) yield `/health answered ${one.status}`
    if (late(one)) yield `/health answered after ${Math.round(one.at - one.from)} ms`
  }
  for (const one of lookout.knocks) {
    if (one.returnCode !== 3 && one.returnCode !== (one.login === 'stranger' ? 4 : 0))
      yield `the login of a ${one.login} was answered ${one.returnCode}`
    if (late(one)) yield `the login of a ${one.login} was answered after ${Math.round(one.at - one.from)} ms`
  }
  yield* device.faults
  const { exitCode, signalCode } = stand.server.process
  if (exitCode !== null || signalCode !== null) yield `the server ended: ${exitCode ?? signalCode}`
  for (const seen of outages) yield* faultsOfOne(seen, lookout, device)
}

function* faultsOfOne(seen: Seen, lookout: Lookout, device: PipeliningDevice): Iterable<string> {
  const outage: Outage = OUTAGES[seen.name]
  if (unavailable(lookout, seen).length === 0) yield `${seen.name}: nobody was answered 503`
  if (seen.drainedMs > DRAINS_WITHIN_MS) yield `${seen.name}: drained only after ${Math.round(seen.drainedMs)} ms`
  if (seen.newWorkMs > DRAINS_WITHIN_MS) yield `${seen.name}: new work only after ${Math.round(seen.newWorkMs)} ms`
  if (seen.grownMiB > MEMORY_MIB) yield `${seen.name}: the server grew by ${Math.round(seen.grownMiB)} MiB`
  if (outage.restarts && !seen.restarted) yield `${seen.name}: PostgreSQL did not start anew`
  const noticed = lookout.health.some(({ status, at }) => status === 503 && at > seen.from && at < seen.back + GRACE_MS)
  if (seen.back - seen.from > GRACE_MS && !noticed) yield `${seen.name}: /health never said 503`
  if (!outage.total) return
  for (const one of lookout.answers)
    if (one.status !== 503 && during(seen, one)) yield `${seen.name}: ${one.what} was answered ${one.status} meanwhile`
  for (const one of lookout.knocks)
    if (one.login !== 'principal' && one.returnCode !== 3 && during(seen, one))
      yield `${seen.name}: the login of a ${one.login} was answered ${one.returnCode} meanwhile`
  if (!lookout.knocks.some((one) => one.returnCode === 3 && during(seen, one)))
    yield `${seen.name}: no login was refused`
  const early = device.pubacks.filter((at) => at > seen.from + STILL_ON_ITS_WAY_MS && at < seen.end)
  if (early.length > 0) yield `${seen.name}: ${early.length} PUBACKs while nothing could be committed`
}

/** What the pipelining device was promised is stored, in the order in which it was said. */
async function disorderOf({ stand, device }: Scene): Promise<string[]> {
  const events = await stand.sql<{ number: number }>(
    `select (data -> 'event' ->> 'seq')::integer as number from events where type = 'client.event' and client_id = $1 order by id`,
    [device.clientId],
  )
  // A statement that was not answered may have been carried out, and is repeated: what counts is the first time.
  const progress = await stand.sql<{ number: number }>(
    `select (data -> 'progress' ->> 'done')::integer as number from events
      where command_id = $1 and data -> 'progress' is not null group by 1 order by min(id)`,
    [device.commandId],
  )
  const stored = { event: events, progress }
  return (['event', 'progress'] as const).flatMap((kind) => {
    const kept = stored[kind].map(({ number }) => number)
    const wrong: string[] = []
    const lost = device.confirmed[kind].filter((number) => !kept.includes(number))
    if (lost.length > 0)
      wrong.push(`${lost.length} of ${kind} were acknowledged and are not there: ${lost.slice(0, 5)}`)
    const at = kept.findIndex((number, index) => index > 0 && number <= (kept[index - 1] as number))
    if (at > 0) wrong.push(`${kind} ${kept[at]} is stored after ${kept[at - 1]}`)
    return wrong
  })
}

/** Whoever is shown online is there, and everybody else is shown offline. */
async function presenceIsTrue(stand: Stand, connected: string[]): Promise<void> {
  const online = async (): Promise<string[]> =>
    (await stand.sql<{ id: string }>('select id from clients where session_epoch is not null')).map(({ id }) => id)
  const wanted = connected.toSorted().join(' ')
  await until(async () => (await online()).toSorted().join(' ') === wanted, 'presence', 10_000).catch(async () => {
    const shown = new Set(await online())
    const wrong = [...shown.symmetricDifference(new Set(connected))]
    throw new Violations(wrong.map((id) => `${id} is shown ${shown.has(id) ? 'online' : 'offline'}, and is not`))
  })
}

function figuresOf({ lookout, loads }: Scene, outages: Seen[]): Figures {
  const refused = lookout.answers.filter(({ status }) => status === 503)
  const most = (figures: number[]): number => Math.round(Math.max(0, ...figures))
  return {
    outages: outages.length,
    'away, s': Math.round(outages.reduce((sum, { from, back }) => sum + back - from, 0) / 1000),
    '503': refused.length,
    'slowest 503, ms': most(refused.map(({ from, at }) => at - from)),
    'slowest answer, ms': most(lookout.answers.map(({ from, at }) => at - from)),
    'CONNACK 3': lookout.knocks.filter(({ returnCode }) => returnCode === 3).length,
    'held at most': most(outages.map(({ held }) => held)),
    'drained within, ms': most(outages.map(({ drainedMs }) => drainedMs)),
    'new work within, ms': most(outages.map(({ newWorkMs }) => newWorkMs)),
    'grown by at most, MiB': most(outages.map(({ grownMiB }) => grownMiB)),
    repeated: loads.reduce((sum, load) => sum + load.repeated, 0),
  }
}

const DISK_MB = 192
/** A log that soon needs room, in small pieces that are not kept for later. */
const SMALL_DISK_SETTINGS = { max_wal_size: '48MB', min_wal_size: '32MB', wal_recycle: 'off' }

/** PostgreSQL ends before its disk goes. */
const endedOn = (disk: SmallDisk, stand: Stand): AsyncDisposable => ({
  async [Symbol.asyncDispose]() {
    disk.free()
    await stand.server?.kill()
    await stand.postgres.stop()
    disk.unmount()
  },
})

const trouble = (name: string, proves: string, outages: OutageName[], sizes: Scenario<Sizes>['sizes']): Scenario =>
  scenario({ name, proves, sizes, run: (chosen, context) => run(outages, chosen, context) })

export const postgresRestarts = trouble(
  'postgres-restarts',
  'PostgreSQL is shut down and started again under load: 503 meanwhile, nothing is lost, all drains by itself.',
  ['fast shutdown'],
  {
    short: { commands: 200, agents: 12, plain: 2, outages: 3, seconds: 0, timeout: 2, burst: 100 },
    long: { commands: 2000, agents: 100, plain: 10, outages: 20, seconds: 0, timeout: 5, burst: 2000 },
  },
)
export const postgresKills = trouble(
  'postgres-kills',
  'PostgreSQL, or one process of it, is killed with -9 under load and recovers: what was answered is there.',
  ['postmaster killed', 'a backend killed'],
  {
    short: { commands: 150, agents: 12, plain: 2, outages: 4, seconds: 0, timeout: 2, burst: 100 },
    long: { commands: 2000, agents: 100, plain: 10, outages: 40, seconds: 0, timeout: 5, burst: 2000 },
  },
)
export const postgresFreezes = trouble(
  'postgres-freezes',
  'Every process of PostgreSQL is stopped under load: 503 in time, no PUBACK, pings answered, then all in order.',
  ['frozen'],
  {
    short: { commands: 300, agents: 12, plain: 2, outages: 1, seconds: 8, timeout: 2, burst: 1000 },
    long: { commands: 2000, agents: 100, plain: 10, outages: 5, seconds: 30, timeout: 5, burst: 5000 },
  },
)
export const postgresFullDisk = trouble(
  'postgres-full-disk',
  'The disk of PostgreSQL is full under load, for tables and for its log: 503, no PUBACK without a commit, then all drains.',
  ['no room for tables', 'no room for the log'],
  {
    short: { commands: 200, agents: 12, plain: 2, outages: 2, seconds: 4, timeout: 2, burst: 300 },
    long: { commands: 2000, agents: 100, plain: 10, outages: 10, seconds: 20, timeout: 5, burst: 2000 },
  },
)
