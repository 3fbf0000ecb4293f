import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../support/until.ts'
import { create } from '../create.ts'
import { judgeStand } from '../evidence.ts'
import { startFleet } from '../fleet.ts'
import { type Accepted, startLoad } from '../load.ts'
import { createLuck } from '../luck.ts'
import { check, scenario } from '../scenario.ts'
import { createStand, type Stand } from '../stand.ts'

const ONLINE_WITHIN_MS = 30_000
/** Work that was created while the server was away from its devices, or gone. */
const COMMANDS_AT_A_RESTART = 150
const SIGNALS = ['SIGTERM', 'SIGKILL'] as const

export const restartStorm = scenario({
  name: 'restart-storm',
  proves:
    'The server is restarted, by SIGTERM and by kill -9, under agents with their default back-off: all are online within 30 s of the signal, and work flows.',
  sizes: {
    short: { agents: 300, hosts: 2, restarts: 2 },
    long: { agents: 2000, hosts: 4, restarts: 6 },
  },
  alone: true,
  async run({ agents, hosts, restarts }, { seed, say }) {
    await using stand = await createStand()
    const luck = createLuck(seed)
    await stand.startServer()
    const fleet = await startFleet(stand, { agents, hosts, plain: 0 })
    await untilAllOnline(stand)
    const accepted: Accepted[] = []
    let slowest = 0
    for (let restart = 0; restart < restarts; restart++) {
      const signal = SIGNALS[restart % SIGNALS.length] as (typeof SIGNALS)[number]
      const load = startLoad(stand, {
        commands: COMMANDS_AT_A_RESTART,
        clientIds: fleet.clientIds,
        zones: fleet.zones,
        luck,
        prefix: `restart-${restart}`,
      })
      await sleep(luck.between(100, 500))
      const from = performance.now()
      const since = (): number => Math.round(performance.now() - from)
      stand.server.process.kill(signal)
      await stand.server.ended()
      const gone = since()
      await stand.startServer()
      const back = since()
      await untilAllOnline(stand)
      const online = since()
      slowest = Math.max(slowest, online)
      // To every one of them: a command that all complete says more than a presence.
      await everybodyWorks(stand, accepted, agents)
      const worked = since()
      await load.done
      accepted.push(...load.accepted)
      say(
        `${signal}: gone after ${gone} ms, back after ${back}, all online after ${online}, all worked after ${worked}`,
      )
      check(online <= ONLINE_WITHIN_MS, `after ${signal} all were online only after ${online} ms`)
    }
    await stand.settled()
    await fleet.stop()
    const judged = await judgeStand(stand, {
      load: { accepted },
      devices: { plain: new Set(), lostMemory: new Set(), agentsWereKilled: false },
    })
    return { agents, restarts, commands: accepted.length, ...judged, 'slowest until all online, ms': slowest }
  },
})

async function untilAllOnline(stand: Stand): Promise<void> {
  const anyOffline = async (): Promise<boolean> => {
    const { status, body } = await stand.api.get('/clients?presence=offline&limit=1')
    return status !== 200 || body.items.length > 0
  }
  await until(
    async () => {
      if (!(await anyOffline())) return true
      await sleep(50)
      return false
    },
    'everybody online',
    4 * ONLINE_WITHIN_MS,
  )
}

async function everybodyWorks(stand: Stand, accepted: Accepted[], agents: number): Promise<void> {
  const payload = { thinkMs: 0, fails: false }
  const { id } = await create(stand, accepted, { broadcast: true, action: 'print', payload }, { wait: 60 })
  const { body } = await stand.api.get(`/commands/${id}`)
  check(body.counts.completed === agents, `a broadcast after the restart: ${JSON.stringify(body.counts)} of ${agents}`)
}
