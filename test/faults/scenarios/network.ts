import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../support/until.ts'
import { judgeStand } from '../evidence.ts'
import { type FaultyNetwork, type HalfOpen, openFaultyNetwork } from '../faulty-network.ts'
import { startFleet } from '../fleet.ts'
import { createLuck, type Luck } from '../luck.ts'
import { check, scenario } from '../scenario.ts'
import { createStand } from '../stand.ts'
import { startSteadyLoad } from '../steady-load.ts'

const KEEPALIVE_SECONDS = 2
/** What is half-open before its CONNACK is given up by the device after this time. */
const CONNECT_TIMEOUT_MS = 3000
/** Either side hears nothing for one and a half keepalives [MQTT-3.1.2-24]; the rest is for a busy machine. */
const NOTICED_WITHIN_MS = KEEPALIVE_SECONDS * 1500 + 12_000
const MORE_ROUNDS = 10

interface Seen {
  cut: number
  slowed: number
  halfOpen: HalfOpen[]
}

/** What a wave does to the network before it is mended; answers how long it is to last, ms. */
type Wave = (network: FaultyNetwork, luck: Luck, seen: Seen) => number

const WAVES: Record<string, Wave> = {
  'some cut'(network, luck, seen) {
    seen.cut += network.cut(0.5, luck)
    return luck.between(0, 300)
  },
  'all gone'(network, luck, seen) {
    network.shut()
    seen.cut += network.cut(1, luck)
    return luck.between(300, 800)
  },
  'half-open'(network, luck, seen) {
    seen.halfOpen.push(...network.swallow(0.4, luck))
    return luck.between(200, 600)
  },
  'half-open, and nobody answers'(network, luck, seen) {
    network.deafen()
    seen.halfOpen.push(...network.swallow(0.6, luck))
    return luck.between(400, 1200)
  },
  slow(network, luck, seen) {
    seen.slowed += network.slow(0.7, 4000, luck)
    return luck.between(400, 1000)
  },
  'slow, then cut'(network, luck, seen) {
    seen.slowed += network.slow(0.7, 1000, luck)
    setTimeout(() => (seen.cut += network.cut(0.5, luck)), 300)
    return 500
  },
}

export const network = scenario({
  name: 'network',
  proves:
    'The network is cut, half-open in one or both directions, deaf and slow, many times at random: both sides notice, the work goes on over new connections, and nothing is lost, unknown or done twice.',
  sizes: {
    short: { agents: 30, hosts: 2, rounds: 2 },
    long: { agents: 120, hosts: 4, rounds: 100 },
  },
  async run({ agents, hosts, rounds }, { seed, say }) {
    await using stand = await createStand()
    const luck = createLuck(seed)
    await stand.startServer()
    const { hostname: host, port } = new URL(stand.mqtt)
    const between = stand.use(await openFaultyNetwork({ host, port: Number(port) }))
    const fleet = await startFleet(
      stand,
      { agents, hosts, plain: 0 },
      {
        url: `mqtt://127.0.0.1:${between.port}`,
        keepaliveSeconds: KEEPALIVE_SECONDS,
        agents: { connectTimeoutMs: CONNECT_TIMEOUT_MS, reconnect: { minMs: 50, maxMs: 500 } },
      },
    )
    const everybody = async (): Promise<void> =>
      void (await until(() => between.connected() >= agents, 'every agent is connected', 30_000))
    await everybody()
    const load = startSteadyLoad(stand, {
      clientIds: fleet.clientIds,
      zones: fleet.zones,
      luck,
      callers: 4,
      pauseMs: 80,
    })
    const seen: Seen = { cut: 0, slowed: 0, halfOpen: [] }
    // A wave hits only who is connected by then, which may be few.
    for (let round = 0; round < rounds || (missed(seen).length > 0 && round < rounds + MORE_ROUNDS); round++) {
      for (const name of luck.shuffled(Object.keys(WAVES))) {
        const lasts = (WAVES[name] as Wave)(between, luck, seen)
        await sleep(lasts)
        between.mend()
        await sleep(luck.between(0, 300))
      }
    }
    await everybody()
    await until(
      () => seen.halfOpen.every(({ device, server }) => device !== undefined && server !== undefined),
      'both sides notice every half-open connection',
      NOTICED_WITHIN_MS,
    )
    await load.end()
    await stand.settled()
    await fleet.stop()

    const [device, server] = (['device', 'server'] as const).map((side) =>
      Math.max(...seen.halfOpen.map((line) => line[side] as number)),
    ) as [number, number]
    check(device <= NOTICED_WITHIN_MS, `a device took ${Math.round(device)} ms to notice a half-open connection`)
    check(server <= NOTICED_WITHIN_MS, `the server took ${Math.round(server)} ms to notice a half-open connection`)
    for (const { what, count } of hits(seen)) say(`${what}: ${count} connections`)
    check(missed(seen).length === 0, missed(seen).join('; '))
    const judged = await judgeStand(stand, {
      load,
      devices: { plain: new Set(), lostMemory: new Set(), agentsWereKilled: false },
    })
    check(judged.unknown === 0, `${judged.unknown} outcomes are unknown, although every memory is intact`)
    const [sessions] = await stand.sql<{ count: number }>(
      "select count(*)::integer as count from events where type = 'client.online'",
    )
    return {
      commands: load.accepted.length,
      ...judged,
      sessions: sessions?.count ?? 0,
      'half-open': seen.halfOpen.length,
      cut: seen.cut,
      slowed: seen.slowed,
      'noticed by a device within, ms': Math.round(device),
      'by the server, ms': Math.round(server),
      cancelled: load.cancelled,
    }

    /** How many connections each trouble has hit, and how many it has to. */
    function hits({ cut, slowed, halfOpen }: Seen): { what: string; count: number; least: number }[] {
      return [
        { what: 'cut', count: cut, least: agents },
        { what: 'slowed', count: slowed, least: agents / 2 },
        ...['up', 'down', 'up,down'].map((ways) => ({
          what: `half-open ${ways}`,
          count: halfOpen.filter((line) => line.ways.join() === ways).length,
          least: rounds,
        })),
      ]
    }

    function missed(seen: Seen): string[] {
      return hits(seen)
        .filter(({ count, least }) => count < least)
        .map(({ what, count, least }) => `${what}: ${count} connections, fewer than ${least}`)
    }
  },
})
