import { setTimeout as sleep } from 'node:timers/promises'
import { type HostOrders, JOURNAL_STEPS } from '../agent-host.ts'
import { create } from '../create.ts'
import { judgeStand } from '../evidence.ts'
import type { Fleet } from '../fleet.ts'
import { clientsOf, interruptedAreUnknown, killInHandlers, startHost, startKillable } from '../host-kills.ts'
import type { Accepted } from '../load.ts'
import { createLuck, type Luck } from '../luck.ts'
import type { Evidence } from '../oracle.ts'
import { check, scenario } from '../scenario.ts'
import { createStand, type Stand } from '../stand.ts'
import type { Work } from '../work.ts'

type KillAt = NonNullable<HostOrders['killAt']>
/** Before or after a step of the journal, or while a handler is in the middle of its work. */
type Kill = Omit<KillAt, 'nth'> | 'in a handler'

const KILLS: Kill[] = [
  ...JOURNAL_STEPS.flatMap((step) => (['before', 'after'] as const).map((when) => ({ when, step }))),
  'in a handler',
]
const nameOf = (kill: Kill): string => (kill === 'in a handler' ? kill : `${kill.when} ${kill.step}`)

/** The steps that every command takes come often; of the others the first is taken. */
const OFTEN = new Set(['received', 'started', 'finished', 'acknowledged'])
const NUDGE_MS = 150

export const agentKills = scenario({
  name: 'agent-kills',
  proves:
    'Processes of agents are killed with -9 before and after every step of the journal and in the middle of handlers: unknown is only what the journal shows as started, and nothing that was started is run again unless that was permitted.',
  sizes: {
    short: { agents: 16, hosts: 4, rounds: 1 },
    long: { agents: 80, hosts: 4, rounds: 40 },
  },
  async run({ agents, hosts, rounds }, { seed, say }) {
    await using stand = await createStand()
    const luck = createLuck(seed)
    await stand.startServer()
    const { fleet, load } = await startKillable(stand, { agents, hosts }, luck)
    const accepted: Accepted[] = []
    const hits = new Map(KILLS.map((kill) => [nameOf(kill), 0]))
    const queue = Array.from({ length: rounds }, () => KILLS).flat()
    /** What was in the middle of its handler, and is at most once: nobody can know what came of it. */
    const interrupted: string[] = []

    async function lane(host: number): Promise<void> {
      for (let kill = queue.shift(); kill; kill = queue.shift()) {
        if (kill === 'in a handler') {
          await startHost(stand, fleet, host)
          interrupted.push(...(await killInHandlers(stand, fleet, host, accepted)))
        } else
          await killAtStep(
            stand,
            fleet,
            host,
            { ...kill, nth: OFTEN.has(kill.step) ? luck.between(1, 12) : 1 },
            luck,
            accepted,
          )
        hits.set(nameOf(kill), (hits.get(nameOf(kill)) ?? 0) + 1)
      }
      await startHost(stand, fleet, host)
    }
    await Promise.all(Array.from({ length: hosts }, (_, host) => lane(host)))
    await load.end()
    accepted.push(...load.accepted)
    await stand.settled()
    await fleet.stop()

    for (const [name, count] of hits) {
      check(count >= rounds, `killed ${count} times ${name}, fewer than ${rounds}`)
      say(`killed ${count} times ${name}`)
    }
    const judged = await judgeStand(stand, {
      load: { accepted },
      devices: { plain: new Set(), lostMemory: new Set(), agentsWereKilled: true },
      also: (evidence) => [...onlyInterrupted(evidence), ...interruptedAreUnknown(interrupted, evidence)],
    })
    return {
      commands: accepted.length,
      ...judged,
      kills: [...hits.values()].reduce((sum, count) => sum + count, 0),
      'interrupted handlers': interrupted.length,
      cancelled: load.cancelled,
    }
  },
})

/** Work is sent until it takes the step: a cancel in the middle of a run, an action that the agent does not have. */
async function killAtStep(
  stand: Stand,
  fleet: Fleet,
  host: number,
  killAt: KillAt,
  luck: Luck,
  accepted: Accepted[],
): Promise<void> {
  const doomed = await startHost(stand, fleet, host, killAt)
  const gone = doomed.ended.then(() => true)
  const clients = clientsOf(fleet, host)
  for (let sent = 0; !(await Promise.race([gone, sleep(NUDGE_MS, false)])); sent++) {
    check(sent < 200, `the step ${killAt.step} was never taken`)
    const clientId = luck.pick(clients)
    if (killAt.step === 'gaveUp') await create(stand, accepted, { clientId, action: 'levitate', payload: BRIEF })
    else {
      const { id } = await create(stand, accepted, { clientId, action: 'print', payload: { ...BRIEF, thinkMs: 200 } })
      if (killAt.step === 'cancelled') await stand.api.post(`/commands/${id}/cancel`, {})
    }
  }
}

const BRIEF: Work = { thinkMs: 20, fails: false }

/** An unknown outcome of what may be done only once has one reason here: the agent ended in the middle of it. */
function* onlyInterrupted({ executions }: Evidence): Iterable<string> {
  for (const { commandId, clientId, status, delivery, errorCode } of executions)
    if (status === 'outcome_unknown' && delivery === 'at_most_once' && errorCode !== 'AGENT_INTERRUPTED')
      yield `${commandId} ${clientId} is unknown because of ${errorCode}`
}
