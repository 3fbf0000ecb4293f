import { join } from 'node:path'
import { startAgents, startTwins } from '../agents.ts'
import { create } from '../create.ts'
import { judgeStand } from '../evidence.ts'
import { registerActions, ZONES } from '../fleet.ts'
import { type Accepted, startLoad } from '../load.ts'
import { createLuck } from '../luck.ts'
import { oneSessionAtTheDevices, oneSessionInTheLedger, type SessionEvent } from '../one-session.ts'
import { type Presence, readPresence } from '../presence-log.ts'
import { check, scenario } from '../scenario.ts'
import { createStand, type Stand } from '../stand.ts'
import { type Effect, readLines } from '../work.ts'

/** Between two connections of one door at most: half as long as a session lasts, on average. */
const PAUSE_MS = 800
const COMMANDS_AT_A_TIME = 40

export const twins = scenario({
  name: 'twins',
  proves:
    'An agent over MQTT and one over HTTP under the same id, with two memories or one, take the session from each other: one session, one effect.',
  sizes: {
    short: { strangers: 6, shared: 6, seconds: 12, limit: 40, takeovers: 10 },
    long: { strangers: 30, shared: 30, seconds: 600, limit: 1200, takeovers: 300 },
  },
  async run(sizes, { seed, say }) {
    await using stand = await createStand()
    const luck = createLuck(seed)
    await stand.startServer()
    await registerActions(stand)
    const strangers = await registerTwins(stand, 'strangers', sizes.strangers)
    const shared = await registerTwins(stand, 'shared', sizes.shared)
    const clientIds = [...strangers, ...shared].map(({ id }) => id)
    const directory = join(stand.directory, 'devices')
    const logs = ['mqtt', 'http'].map((name) => join(stand.directory, `presence-${name}.log`)) as [string, string]
    const hosts = await Promise.all([
      startAgents({
        url: stand.mqtt,
        directory,
        devices: strangers,
        reconnect: { minMs: PAUSE_MS, maxMs: PAUSE_MS },
        presenceLog: logs[0],
      }),
      startTwins({
        http: stand.http,
        mqtt: stand.mqtt,
        directory,
        presenceLog: logs[1],
        pauseMs: PAUSE_MS,
        devices: [
          ...strangers.map((device) => ({ ...device, doors: 'http' as const })),
          ...shared.map((device) => ({ ...device, doors: 'both' as const })),
        ],
      }),
    ])
    for (const host of hosts) stand.use(host)

    const accepted: Accepted[] = []
    let cancelled = 0
    const from = performance.now()
    const lasted = (seconds: number): boolean => performance.now() - from > seconds * 1000
    const fewest = (): number => fewestOfADoor(clientIds, readPresence(logs))
    for (let round = 0; !lasted(sizes.seconds) || (fewest() < sizes.takeovers && !lasted(sizes.limit)); round++) {
      const load = startLoad(stand, {
        commands: COMMANDS_AT_A_TIME,
        clientIds,
        zones: ZONES,
        luck,
        prefix: `load-${round}`,
        callers: 4,
        pauseMs: 120,
      })
      const payload = { thinkMs: luck.between(0, 30), fails: false }
      await create(stand, accepted, { zone: luck.pick(ZONES), action: 'print', payload })
      await create(stand, accepted, { broadcast: true, action: luck.chance(0.8) ? 'print' : 'index', payload })
      await load.done
      accepted.push(...load.accepted)
      cancelled += load.cancelled
    }
    await stand.settled()
    await Promise.all(hosts.map((host) => host.stop()))

    const sessions = await stand.sql<SessionEvent & Record<string, unknown>>(
      `select client_id as "clientId", type, (data ->> 'epoch')::integer as epoch from events
       where type in ('client.online', 'client.offline', 'execution.queued', 'execution.redelivered') order by id`,
    )
    const presences = readPresence(logs)
    const judged = await judgeStand(stand, {
      load: { accepted },
      devices: { plain: new Set(), lostMemory: new Set(strangers.map(({ id }) => id)), agentsWereKilled: false },
      also: () => [...oneSessionInTheLedger(sessions), ...oneSessionAtTheDevices(presences)].slice(0, 12),
    })
    check(fewest() >= sizes.takeovers, `a door was open ${fewest()} times, fewer than ${sizes.takeovers}`)
    const effects = (file: string): number =>
      readLines<Effect>(join(directory, file)).filter(({ clientId }) => clientId.startsWith('strangers')).length
    const overMqtt = effects('effects.jsonl')
    const overHttp = effects('effects-twins.jsonl')
    check(Math.min(overMqtt, overHttp) >= 20, `work over one door only: ${overMqtt} over MQTT, ${overHttp} over HTTP`)
    say(`of strangers ${overMqtt} effects over MQTT, ${overHttp} over HTTP`)
    return {
      commands: accepted.length,
      ...judged,
      sessions: sessions.filter(({ type }) => type === 'client.online').length,
      'sessions of a door, at least': fewest(),
      redelivered: sessions.filter(({ type }) => type === 'execution.redelivered').length,
      cancelled,
    }
  },
})

/** How often the door that was open least was open. */
function fewestOfADoor(clientIds: string[], presences: Presence[]): number {
  const count = Map.groupBy(presences, ({ clientId, door }) => `${clientId} ${door}`)
  return Math.min(...clientIds.flatMap((id) => ['mqtt', 'http'].map((door) => count.get(`${id} ${door}`)?.length ?? 0)))
}

async function registerTwins(
  stand: Stand,
  prefix: string,
  count: number,
): Promise<{ id: string; clientKey: string; zones: string[] }[]> {
  const registered = []
  for (let index = 0; index < count; index++) {
    const id = `${prefix}-${index + 1}`
    const zones = [ZONES[index % ZONES.length] as string]
    registered.push({ id, zones, clientKey: await stand.register(id, { zones }) })
  }
  return registered
}
