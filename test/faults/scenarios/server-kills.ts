import { setTimeout as sleep } from 'node:timers/promises'
import type { KillPoint } from '../../support/server-process.ts'
import { until } from '../../support/until.ts'
import { judgeStand } from '../evidence.ts'
import { startFleet } from '../fleet.ts'
import { type Load, startLoad } from '../load.ts'
import { createLuck } from '../luck.ts'
import { check, scenario } from '../scenario.ts'
import { createStand, type Stand } from '../stand.ts'

const POINTS: KillPoint[] = ['create-committed', 'claim-committed', 'forwarded', 'report-received', 'report-committed']
/** Each point is hit at least this often. */
const HITS = 2
const FLOWS_WITHIN_MS = 10_000

export const serverKills = scenario({
  name: 'server-kills',
  proves:
    'The server is killed with -9 at random and at named points under load: nothing is lost, nothing happens twice.',
  sizes: {
    short: { commands: 2000, agents: 40, hosts: 2, plain: 4, kills: 20, settleSeconds: 60 },
    long: { commands: 50_000, agents: 200, hosts: 4, plain: 20, kills: 200, settleSeconds: 120 },
  },
  async run({ commands, agents, hosts, plain, kills, settleSeconds }, { seed, say }) {
    await using stand = await createStand()
    const luck = createLuck(seed)
    await stand.startServer()
    const fleet = await startFleet(stand, { agents, hosts, plain })
    const hits = new Map<KillPoint, number>(POINTS.map((point) => [point, 0]))
    const perLife = Math.ceil(commands / kills)
    let random = 0
    let slowest = 0
    const loads: Load[] = []
    loads.push(load(perLife))
    for (let kill = 0; kill < kills; kill++) {
      const point = nextPoint(kill)
      if (point === undefined) {
        await sleep(luck.between(200, 1500))
        await stand.server.kill()
        random++
      } else {
        // What passes a point passes it in batches: if this part of the load was too small to get there, there is more.
        const { process } = stand.server
        const killed = until(
          () => process.exitCode !== null || process.signalCode !== null,
          `a kill at ${point}`,
          60_000,
        ).then(() => 'killed' as const)
        while ((await Promise.race([killed, loads.at(-1)?.done])) !== 'killed') loads.push(load(perLife))
        hits.set(point, (hits.get(point) ?? 0) + 1)
      }
      const next = kill + 1 < kills ? nextPoint(kill + 1) : undefined
      await stand.startServer(next ? { killAt: next, killAfter: luck.between(1, 40) } : {})
      const from = performance.now()
      loads.push(load(perLife))
      if (next === undefined) slowest = Math.max(slowest, await untilWorkFlows(stand, from))
    }
    await Promise.all(loads.map((part) => part.done))
    const lasting = loads.flatMap((part) => part.accepted)
    await stand.settled(settleSeconds * 1000)
    await fleet.stop()
    const judged = await judgeStand(stand, {
      load: { accepted: lasting },
      plain: fleet.plain,
      devices: { plain: fleet.plainIds, lostMemory: new Set(), agentsWereKilled: false },
    })
    const missed = POINTS.filter((point) => (hits.get(point) ?? 0) < HITS)
    check(missed.length === 0, `not hit ${HITS} times: ${missed.join(', ')}`)
    check(slowest <= FLOWS_WITHIN_MS, `after a start no work flowed for ${Math.round(slowest)} ms`)
    for (const [point, count] of hits) say(`killed ${count} times at ${point}`)
    return {
      commands: lasting.length,
      ...judged,
      kills: random + [...hits.values()].reduce((sum, count) => sum + count, 0),
      'random kills': random,
      repeated: loads.reduce((sum, part) => sum + part.repeated, 0),
      cancelled: loads.reduce((sum, part) => sum + part.cancelled, 0),
      'slowest flow, ms': Math.round(slowest),
    }

    function nextPoint(kill: number): KillPoint | undefined {
      return kill % 2 === 1 ? POINTS[((kill - 1) / 2) % POINTS.length] : undefined
    }

    function load(size: number): Load {
      return startLoad(stand, {
        commands: size,
        clientIds: fleet.clientIds,
        zones: fleet.zones,
        luck,
        prefix: `load-${loads.length}`,
      })
    }
  },
})

/** Since `from`, until something that was created or open is completed by a device. */
async function untilWorkFlows(stand: Stand, from: number): Promise<number> {
  const [before] = await stand.sql<{ now: Date }>('select clock_timestamp() as now')
  await until(
    async () =>
      (
        await stand.sql('select 1 from executions where status = $1 and completed_at > $2 limit 1', [
          'completed',
          before?.now,
        ])
      ).length > 0,
    'work flows after a start',
    60_000,
  )
  return performance.now() - from
}
