import { setTimeout as sleep } from 'node:timers/promises'
import { startRedis } from '../../support/redis.ts'
import { type ServerProcess, startServerProcess } from '../../support/server-process.ts'
import { hasTool } from '../../support/tools.ts'
import { until } from '../../support/until.ts'
import { openBalancer } from '../balancer.ts'
import { judgeStand } from '../evidence.ts'
import { startFleet } from '../fleet.ts'
import type { Accepted } from '../load.ts'
import { createLuck } from '../luck.ts'
import { check, NotRun, scenario } from '../scenario.ts'
import { createStand, type Stand } from '../stand.ts'
import { startSteadyLoad } from '../steady-load.ts'

const LEASE_SECONDS = 3
/** Everybody is back on the node that lives, by reconnecting; the lease is what those take who do not. */
const ONLINE_WITHIN_MS = 30_000

export const nodes = scenario({
  name: 'nodes',
  proves:
    'Two nodes with one Redis behind a balancer: one is killed with -9 again and again, Redis too, and one is frozen for longer than its lease; its devices go on at the other, everything ends, nothing happens twice.',
  sizes: {
    short: { agents: 60, hosts: 2, plain: 4, kills: 3, redisKills: 1, freezes: 1 },
    long: { agents: 2000, hosts: 4, plain: 20, kills: 20, redisKills: 5, freezes: 5 },
  },
  async run({ agents, hosts, plain, kills, redisKills, freezes }, { seed, say }) {
    if (!hasTool('redis-server', 'redis-server')) throw new NotRun('redis-server is missing')
    await using stand = await createStand({ postgresSettings: { max_connections: '60' } })
    const luck = createLuck(seed)
    const redis = await startRedis()
    stand.use({ [Symbol.asyncDispose]: redis.stop })
    const running: ServerProcess[] = []
    const start = async (): Promise<void> => {
      const settings = { REDIS_URL: redis.url, NODE_LEASE_SECONDS: LEASE_SECONDS, RETRY_BACKOFF_SECONDS: 0.5 }
      running.push(await startServerProcess({ url: stand.postgres.url }, { settings }))
    }
    stand.use({
      async [Symbol.asyncDispose]() {
        await Promise.all(running.map((node) => node.kill()))
      },
    })
    await start()
    await start()
    stand.use(await openBalancer(portOf(stand.mqtt), () => running.map(({ mqttPort }) => mqttPort)))
    stand.use(await openBalancer(portOf(stand.http), () => running.map(({ http }) => portOf(http))))

    const fleet = await startFleet(
      stand,
      { agents, hosts, plain },
      { agents: { reconnect: { minMs: 100, maxMs: 2000 } } },
    )
    await untilAllOnline(stand, running)
    const spread = await sessionsByNode(stand)
    check(spread.length === 2, `the devices are on ${spread.length} nodes`)
    const { clientIds, zones } = fleet
    // A zone of a large fleet is many executions, and its devices share the machine with everything else.
    const pauseMs = Math.max(40, (agents * agents) / 500)
    const load = startSteadyLoad(stand, { clientIds, zones, luck, callers: 4, pauseMs })
    const everybody: Accepted[] = []
    let slowest = 0
    for (let kill = 0; kill < kills; kill++) {
      if (kill < redisKills) await redis.kill()
      await sleep(luck.between(500, 1500))
      const [dead] = running.splice(luck.between(0, 1), 1) as [ServerProcess]
      const from = performance.now()
      await dead.kill()
      await untilAllOnline(stand, running)
      slowest = Math.max(slowest, performance.now() - from)
      everybody.push(await everybodyWorks(stand, clientIds.length))
      if (kill < redisKills) await redis.restart()
      await start()
    }
    for (let freeze = 0; freeze < freezes; freeze++) {
      const frozen = luck.pick(running)
      frozen.process.kill('SIGSTOP')
      // Its lease is over, and it knows nothing of that.
      await until(
        async () => (await sessionsByNode(stand)).every(({ pid }) => pid !== frozen.process.pid),
        'its end',
        60_000,
      )
      frozen.process.kill('SIGCONT')
      await untilAllOnline(stand, running)
    }
    await load.end()
    await stand.settled()
    await untilAllOnline(stand, running)
    const owned = await sessionsByNode(stand)
    await fleet.stop()
    const judged = await judgeStand(stand, {
      load: { accepted: [...load.accepted, ...everybody] },
      plain: fleet.plain,
      devices: { plain: fleet.plainIds, lostMemory: new Set(), agentsWereKilled: false },
    })
    check(
      owned.every(({ alive }) => alive),
      `sessions of nodes that are gone: ${JSON.stringify(owned)}`,
    )
    check(slowest <= ONLINE_WITHIN_MS, `after a kill all were online only after ${Math.round(slowest)} ms`)
    say(`devices at first: ${spread.map(({ clients }) => clients).join(' and ')}`)
    return {
      commands: load.accepted.length + everybody.length,
      ...judged,
      kills,
      'kills of Redis': redisKills,
      freezes,
      cancelled: load.cancelled,
      'slowest until all online, ms': Math.round(slowest),
    }
  },
})

/** All of them at the node that is left, whether or not Redis is there. */
async function everybodyWorks(stand: Stand, clients: number): Promise<Accepted> {
  const key = crypto.randomUUID()
  const body = { broadcast: true, action: 'print', payload: { thinkMs: 0, fails: false } }
  const send = async () => {
    // A connection that the killed node had may be tried first; a large fleet on few cores takes longer than one may wait.
    const answer = await stand.api.post('/commands?wait=60', body, { 'idempotency-key': key }).catch(() => undefined)
    return answer && answer.status < 300 && answer.body.completedAt !== undefined && answer.body
  }
  const { id, delivery, total, counts } = await until(send, 'a broadcast', 240_000)
  check(counts.completed === clients, `a broadcast after a kill: ${JSON.stringify(counts)} of ${clients}`)
  return { id, key, delivery, total }
}

const portOf = (url: string): number => Number(new URL(url).port)

const sessionsByNode = (stand: Stand) =>
  stand.sql<{ pid: number | null; clients: number; alive: boolean }>(
    `select n.process_id as pid, count(*)::integer as clients, bool_and(n.expires_at > clock_timestamp()) is true as alive
     from clients k left join nodes n on n.id = k.session_node
     where k.session_epoch is not null group by n.process_id`,
  )

/** By the ledger: those of a killed node stay in it until somebody has noticed. */
async function untilAllOnline(stand: Stand, running: ServerProcess[]): Promise<void> {
  const pids = running.map((node) => node.process.pid)
  const away = `select 1 from clients k where k.deleted_at is null and (k.session_epoch is null
    or not exists (select 1 from nodes n where n.id = k.session_node and n.process_id = any($1))) limit 1`
  await until(
    async () => {
      if ((await stand.sql(away, [pids])).length === 0) return true
      await sleep(50)
      return false
    },
    'everybody online',
    4 * ONLINE_WITHIN_MS,
  )
}
