import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type BadDevice, MANNERS, startBadDevice } from '../bad-devices.ts'
import { create } from '../create.ts'
import { judgeStand } from '../evidence.ts'
import { startFleet } from '../fleet.ts'
import type { Accepted } from '../load.ts'
import { createLuck, type Luck } from '../luck.ts'
import { type PlainDevice, startPlainDevice } from '../plain-device.ts'
import { check, scenario } from '../scenario.ts'
import { createStand, type Stand } from '../stand.ts'
import { startSteadyLoad } from '../steady-load.ts'
import type { Work } from '../work.ts'

const SETTINGS = { PUBACK_TIMEOUT_SECONDS: 4, MQTT_SLOW_READER_SECONDS: 2 }
/** Good devices' work, from the create to its completion: at most so much slower than before, or this at all. */
const SLOWER_AT_MOST = 4
const SLOW_MS = 1000
const BRIEF: Work = { thinkMs: 0, fails: false }
/** More than the buffers between the server and a reader take in. */
const FILLING = { commands: 30, filler: 'x'.repeat(200_000) }

/** What is to be seen at least, for each device and second of trouble. */
const PER_SECOND: Record<string, Record<string, number>> = {
  'never-acknowledges': { 'left without PUBACK': 0.5, 'closed by the server': 0.1 },
  'reads-nothing': { 'closed by the server': 0.01 },
  'acknowledges-anyhow': { 'PUBACKs in any order': 1, 'bogus PUBACKs': 1 },
  'reports-anyhow': {
    'reports twice': 1,
    'reports without attempt': 0.5,
    'reports of older attempts': 0.2,
    'reports of a future attempt': 0.2,
    'reports after the end': 0.5,
    'reports of nothing': 0.5,
  },
}
const SESSIONS_PER_SECOND = 0.5

interface Client {
  clientId: string
  clientKey: string
}

export const badDevices = scenario({
  name: 'bad-devices',
  proves:
    'Devices that read nothing, never acknowledge, acknowledge and report anyhow, and pairs that fight for one session: what they do is judged rightly, and the good devices beside them notice nothing.',
  sizes: {
    short: { agents: 20, each: 2, pairs: 2, calmSeconds: 3, seconds: 9 },
    long: { agents: 100, each: 10, pairs: 10, calmSeconds: 30, seconds: 600 },
  },
  async run(sizes, { seed, say }) {
    await using stand = await createStand({ settings: SETTINGS })
    const luck = createLuck(seed)
    await stand.startServer()
    const fleet = await startFleet(stand, { agents: sizes.agents, hosts: 1, plain: 0 })
    const outlaws = await registerAll(stand, Object.keys(MANNERS), sizes.each)
    const contested = await registerAll(stand, ['contested'], sizes.pairs)
    const load = startSteadyLoad(stand, {
      clientIds: fleet.clientIds,
      zones: fleet.zones,
      luck,
      callers: 4,
      pauseMs: 60,
    })
    await sleep(sizes.calmSeconds * 1000)
    const from = await clockOf(stand)

    const bad = outlaws.map((client) => stand.use(startBadDevice(stand, mannerOf(client), client, luck)))
    const fighters = [...contested, ...contested].map((client) => startPlain(stand, client))
    const accepted: Accepted[] = []
    const end = performance.now() + sizes.seconds * 1000
    await Promise.all(
      [...outlaws, ...contested].map((client) =>
        keepBusy(stand, client, accepted, luck, () => performance.now() < end),
      ),
    )
    const to = await clockOf(stand)
    await load.end()
    accepted.push(...load.accepted)
    // They are repaired: what is left goes to devices that do as they should.
    await Promise.all(bad.map((device) => device[Symbol.asyncDispose]()))
    const repaired = outlaws.map((client) => startPlain(stand, client))
    await stand.settled()
    await fleet.stop()
    await Promise.all([...repaired, ...fighters].map((device) => device[Symbol.asyncDispose]()))

    for (const manner of Object.keys(MANNERS)) checkCounts(manner, bad, sizes.seconds, say)
    const sessions = await sessionsOf(stand, contested)
    check(
      sessions >= sizes.pairs * sizes.seconds * SESSIONS_PER_SECOND,
      `only ${sessions} sessions of those who fight for one`,
    )
    const calm = await percentile99(stand, fleet.clientIds, undefined, from)
    const beside = await percentile99(stand, fleet.clientIds, from, to)
    const limit = Math.max(SLOW_MS, calm * SLOWER_AT_MOST)
    check(beside <= limit, `a good device's p99 is ${beside} ms beside the bad ones, ${calm} ms without`)
    const judged = await judgeStand(stand, {
      load: { accepted },
      plain: [...bad, ...repaired, ...fighters],
      devices: {
        plain: new Set([...outlaws, ...contested].map(({ clientId }) => clientId)),
        lostMemory: new Set(),
        agentsWereKilled: false,
      },
      also: () => bad.flatMap(({ wrong }) => wrong),
    })
    const lost = await lostSessions(stand, fleet.clientIds)
    check(lost === 0, `good devices lost their connection ${lost} times`)
    return {
      commands: accepted.length,
      ...judged,
      'sessions of those who fight': sessions,
      "a good device's p99, ms": beside,
      'without them, ms': calm,
    }
  },
})

async function registerAll(stand: Stand, names: string[], each: number): Promise<Client[]> {
  const clients: Client[] = []
  for (const name of names)
    for (let number = 1; number <= each; number++) {
      const clientId = `${name}-${number}`
      clients.push({ clientId, clientKey: await stand.register(clientId) })
    }
  return clients
}

const mannerOf = ({ clientId }: { clientId: string }): string => clientId.replace(/-\d+$/, '')

const startPlain = (stand: Stand, client: Client): PlainDevice =>
  stand.use(
    startPlainDevice({
      ...client,
      mqttPort: Number(new URL(stand.mqtt).port),
      directory: join(stand.directory, 'devices'),
    }),
  )

/** Bursts for each, so that there is something to take out of order. */
async function keepBusy(
  stand: Stand,
  client: Client,
  accepted: Accepted[],
  luck: Luck,
  going: () => boolean,
): Promise<void> {
  const { clientId } = client
  if (mannerOf(client) === 'reads-nothing') {
    const payload = { ...BRIEF, filler: FILLING.filler }
    for (let sent = 0; sent < FILLING.commands; sent++)
      await create(stand, accepted, { clientId, action: 'print', payload, priority: 10 })
    return
  }
  while (going()) {
    for (let left = luck.between(1, 6); left > 0; left--) {
      const repeats = luck.chance(0.25)
      const payload: Work = { ...BRIEF, ...(repeats ? { failures: 1 } : {}) }
      // What is never acknowledged would be repeated for ever.
      const action = repeats && mannerOf(client) === 'reports-anyhow' ? 'index' : 'print'
      await create(stand, accepted, { clientId, action, payload: action === 'index' ? payload : BRIEF })
    }
    await sleep(luck.between(200, 800))
  }
}

function checkCounts(manner: string, bad: BadDevice[], seconds: number, say: (line: string) => void): void {
  const devices = bad.filter((device) => mannerOf(device) === manner)
  const counts = new Map<string, number>()
  for (const device of devices)
    for (const [what, count] of device.counts) counts.set(what, (counts.get(what) ?? 0) + count)
  say(`${manner}: ${[...counts].map(([what, count]) => `${count} ${what}`).join(', ')}`)
  for (const [what, perSecond] of Object.entries(PER_SECOND[manner] ?? {})) {
    const least = Math.ceil(perSecond * seconds * devices.length)
    const count = counts.get(what) ?? 0
    check(count >= least, `${manner}: ${count} ${what}, fewer than ${least}`)
  }
}

async function clockOf(stand: Stand): Promise<Date> {
  const [row] = await stand.sql<{ now: Date }>('select clock_timestamp() as now')
  return (row as { now: Date }).now
}

/** From the create to the completion, of what was created in this time, ms. */
async function percentile99(stand: Stand, clientIds: string[], from: Date | undefined, to: Date): Promise<number> {
  const [row] = await stand.sql<{ p99: number }>(
    `select percentile_disc(0.99) within group (order by extract(epoch from e.completed_at - c.created_at) * 1000)::integer as p99
     from executions e join commands c on c.id = e.command_id
     where e.client_id = any($1::text[]) and e.attempt = 1 and e.status = 'completed'
       and c.created_at >= coalesce($2::timestamptz, '-infinity') and c.created_at < $3::timestamptz`,
    [clientIds, from ?? null, to],
  )
  return (row as { p99: number }).p99
}

const count = async (stand: Stand, type: string, clientIds: string[]): Promise<number> => {
  const [row] = await stand.sql<{ count: number }>(
    `select count(*)::integer as count from events where type = $1 and client_id = any($2::text[])`,
    [type, clientIds],
  )
  return (row as { count: number }).count
}

const sessionsOf = (stand: Stand, clients: Client[]): Promise<number> =>
  count(
    stand,
    'client.online',
    clients.map(({ clientId }) => clientId),
  )

/** Each has one, from the beginning to its end. */
const lostSessions = async (stand: Stand, clientIds: string[]): Promise<number> =>
  (await count(stand, 'client.online', clientIds)) - clientIds.length
