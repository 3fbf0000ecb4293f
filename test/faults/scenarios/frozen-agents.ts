import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../support/until.ts'
import { type AgentHost, startAgents } from '../agents.ts'
import { create } from '../create.ts'
import { judgeStand } from '../evidence.ts'
import { startFleet, ZONES } from '../fleet.ts'
import { percentile, readDeviceTimes } from '../latency.ts'
import type { Accepted } from '../load.ts'
import { createLuck } from '../luck.ts'
import { check, scenario } from '../scenario.ts'
import { createStand } from '../stand.ts'

const P99_MS = 250
/** One command to a device in each pace; one to a zone and one to all at multiples of it. */
const ZONE_EVERY = 50
const BROADCAST_EVERY = 100
/** What two of the frozen ones are sent, past their windows, is more than the buffers of a socket hold. */
const FLOODED = 2
const FLOOD = { commands: 100, bytes: 64 * 1024 }
/** Before anybody is frozen, for comparison. */
const WARM_SECONDS = 3

export const frozenAgents = scenario({
  name: 'frozen-agents',
  proves:
    'Agents are stopped with SIGSTOP, their sockets open and nothing read: for the others the p99 from the request to the device, and to the committed result, stays under 250 ms; the frozen ones lose nothing.',
  sizes: {
    // Devices, server and PostgreSQL share the cores: a pace at which they are half idle, so that what is measured is the freezing.
    short: { agents: 16, hosts: 4, frozen: 10, paceMs: 25, samples: 400, freezeSeconds: 8 },
    long: { agents: 16, hosts: 4, frozen: 10, paceMs: 25, samples: 3000, freezeSeconds: 90 },
  },
  alone: true,
  async run(sizes, { seed, say }) {
    // Both ways to lose patience with a frozen reader fall into the short form.
    await using stand = await createStand({ settings: { PUBACK_TIMEOUT_SECONDS: 6, MQTT_SLOW_READER_SECONDS: 5 } })
    const luck = createLuck(seed)
    await stand.startServer()
    const fleet = await startFleet(stand, { ...sizes, plain: 0 })
    const directory = join(stand.directory, 'devices')
    const frozenIds = Array.from({ length: sizes.frozen }, (_, index) => `frozen-${index + 1}`)
    const devices: { id: string; clientKey: string }[] = []
    for (const [index, id] of frozenIds.entries())
      devices.push({ id, clientKey: await stand.register(id, { zones: [ZONES[index % ZONES.length]] }) })
    const frozen: AgentHost[] = await Promise.all(
      [0, 1].map(async (half) =>
        stand.use(
          await startAgents({ url: stand.mqtt, directory, devices: devices.filter((_, index) => index % 2 === half) }),
        ),
      ),
    )
    const online = sizes.agents + sizes.frozen
    await until(
      async () => (await stand.sql('select 1 from clients where session_epoch is not null')).length === online,
      'all online',
    )

    const accepted: Accepted[] = []
    const postedAt = new Map<string, number>()
    const underWay = new Set<Promise<void>>()
    const before = new Set(await work(() => false, WARM_SECONDS))
    for (const host of frozen) host.process.kill('SIGSTOP')
    let commands: string[] = []
    try {
      flood(frozenIds.slice(0, FLOODED))
      commands = await work((sent) => sent < sizes.samples, sizes.freezeSeconds)
    } finally {
      for (const host of frozen) host.process.kill('SIGCONT')
    }
    await Promise.all(underWay)
    await stand.settled()
    const lost = await stand.sql(
      `select 1 from events where type = 'client.offline' and client_id = any($1) and id < (select max(id) from events)`,
      [frozenIds],
    )
    await fleet.stop()
    await Promise.all(frozen.map((host) => host.stop()))

    const judged = await judgeStand(stand, {
      load: { accepted },
      devices: { plain: new Set(), lostMemory: new Set(), agentsWereKilled: false },
      *also({ executions }) {
        for (const { commandId, clientId, status } of executions)
          if (status !== 'completed') yield `${commandId} ${clientId} is ${status}`
      },
    })
    const times = readDeviceTimes(directory, fleet.clientIds)
    const quiet = latencies(before)
    const during = latencies(new Set(commands))
    say(`before: ${shown(quiet)}`)
    say(`during: ${shown(during)}`)
    check(during.reached.length >= sizes.samples, `only ${during.reached.length} samples`)
    check(lost.length > 0, 'no frozen agent was given up: they were not frozen long enough')
    for (const [what, sample] of Object.entries(during)) {
      const p99 = percentile(sample, 0.99)
      check(p99 < P99_MS, `p99 ${what} ${p99.toFixed(0)} ms, ${P99_MS} are allowed (before: ${shown(quiet)})`)
    }
    return {
      commands: accepted.length,
      ...judged,
      samples: during.reached.length,
      'p99 to the device, ms': Math.round(percentile(during.reached, 0.99)),
      'p99 to the result, ms': Math.round(percentile(during.committed, 0.99)),
      'p99 before, ms': `${Math.round(percentile(quiet.reached, 0.99))} and ${Math.round(percentile(quiet.committed, 0.99))}`,
      'sessions given up': lost.length,
    }

    /** Sends at an even pace, whether or not the answers come, for so long and while more is wanted; answers the commands. */
    async function work(more: (executions: number) => boolean, seconds: number): Promise<string[]> {
      const sent: Promise<Accepted>[] = []
      let executions = 0
      const from = performance.now()
      for (let turn = 0; performance.now() - from < seconds * 1000 || more(executions); turn++) {
        const [to, reaches] = target(turn)
        executions += reaches
        const action = luck.chance(0.8) ? 'print' : 'index'
        sent.push(post({ ...to, action, payload: { thinkMs: 0, fails: false }, priority: luck.between(1, 9) }))
        await sleep(Math.max(0, from + (turn + 1) * sizes.paceMs - performance.now()))
      }
      return (await Promise.all(sent)).map(({ id }) => id)
    }

    function target(turn: number): [Record<string, unknown>, number] {
      if (turn % BROADCAST_EVERY === BROADCAST_EVERY - 1) return [{ broadcast: true }, sizes.agents]
      if (turn % ZONE_EVERY === ZONE_EVERY / 2) return [{ zone: luck.pick(ZONES) }, Math.floor(sizes.agents / 3)]
      return [{ clientId: luck.pick(fleet.clientIds) }, 1]
    }

    async function post(body: Record<string, unknown>): Promise<Accepted> {
      const at = performance.timeOrigin + performance.now()
      const command = await create(stand, accepted, body)
      postedAt.set(command.id, at)
      return command
    }

    function flood(clientIds: string[]): void {
      const payload = { thinkMs: 0, fails: false, padding: 'x'.repeat(FLOOD.bytes) }
      for (const clientId of clientIds) {
        const all = async (): Promise<void> => {
          for (let count = 0; count < FLOOD.commands; count++)
            await create(stand, accepted, { clientId, action: 'print', payload, priority: 10 })
        }
        underWay.add(all())
      }
    }

    function latencies(ids: ReadonlySet<string>): { reached: number[]; committed: number[] } {
      const seen = times.filter(({ id }) => ids.has(id))
      const since = (id: string, at: number | undefined): number => (at ?? Number.NaN) - (postedAt.get(id) as number)
      return {
        reached: seen.map(({ id, receivedAt }) => since(id, receivedAt)),
        committed: seen.map(({ id, reportedAt }) => since(id, reportedAt)),
      }
    }
  },
})

const shown = ({ reached, committed }: { reached: number[]; committed: number[] }): string =>
  Object.entries({ 'to the device': reached, 'to the result': committed })
    .map(
      ([what, sample]) =>
        `${what} p50 ${percentile(sample, 0.5).toFixed(0)}, p99 ${percentile(sample, 0.99).toFixed(0)}, max ${percentile(sample, 1).toFixed(0)} ms`,
    )
    .join('; ')
    .concat(` (${reached.length} samples)`)
