import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { judgeStand } from '../evidence.ts'
import { clientsOf, interruptedAreUnknown, killInHandlers, startHost, startKillable } from '../host-kills.ts'
import { DAMAGES, journalIdOf, keepCopy } from '../journal-damage.ts'
import type { Accepted } from '../load.ts'
import { createLuck } from '../luck.ts'
import type { Evidence } from '../oracle.ts'
import { check, scenario } from '../scenario.ts'
import { createStand } from '../stand.ts'

/** What an agent forgot although it had acknowledged it: the timers settle that. */
const TIMERS = { DEFAULT_START_TIMEOUT_SECONDS: 5, DEFAULT_TIMEOUT_SECONDS: 5 }
const KINDS = Object.keys(DAMAGES)

export const tornJournal = scenario({
  name: 'torn-journal',
  proves:
    'Agents are killed in the middle of their work and their journals torn, corrupted, removed or exchanged for old copies: nothing that may be done only once is done twice, and what nobody can know is said to be unknown.',
  sizes: {
    short: { agents: 18, hosts: 2, rounds: 2 },
    long: { agents: 90, hosts: 3, rounds: 60 },
  },
  async run({ agents, hosts, rounds }, { seed, say }) {
    await using stand = await createStand({ settings: TIMERS })
    const luck = createLuck(seed)
    await stand.startServer()
    const { fleet, load } = await startKillable(stand, { agents, hosts }, luck)
    const folder = join(stand.directory, 'devices')
    const fileOf = (clientId: string): string => join(folder, `${clientId}.sqlite`)
    const accepted: Accepted[] = []
    const seen = Object.fromEntries(KINDS.map((kind) => [kind, { times: 0, anew: 0 }]))
    const interrupted: string[] = []
    let next = 0

    async function lane(host: number): Promise<void> {
      const clients = clientsOf(fleet, host)
      for (let round = 0; round < rounds; round++) {
        await fleet.hosts[host]?.kill()
        for (const clientId of clients) keepCopy(fileOf(clientId))
        await startHost(stand, fleet, host)
        await sleep(luck.between(200, 800))
        const action = luck.chance(0.8) ? 'print' : 'index'
        const killed = await killInHandlers(stand, fleet, host, accepted, action)
        if (action === 'print') interrupted.push(...killed)
        const damaged = clients.map((clientId) => {
          const kind = KINDS[next++ % KINDS.length] as string
          const before = journalIdOf(fileOf(clientId))
          DAMAGES[kind]?.(fileOf(clientId), luck)
          return { clientId, kind, before }
        })
        await startHost(stand, fleet, host)
        for (const { clientId, kind, before } of damaged) {
          const count = seen[kind] as { times: number; anew: number }
          count.times++
          if (journalIdOf(fileOf(clientId)) !== before) count.anew++
        }
      }
    }
    await Promise.all(Array.from({ length: hosts }, (_, host) => lane(host)))
    await load.end()
    accepted.push(...load.accepted)
    await stand.settled()
    await fleet.stop()

    for (const [kind, { times, anew }] of Object.entries(seen)) {
      check(times >= rounds, `${kind}: ${times} times, fewer than ${rounds}`)
      say(`${kind}: ${times} times, ${anew} of them a new journal`)
    }
    const judged = await judgeStand(stand, {
      load: { accepted },
      devices: { plain: new Set(), lostMemory: new Set(fleet.clientIds), agentsWereKilled: true },
      also: (evidence) => [...onlyWhereItMustBe(evidence), ...interruptedAreUnknown(interrupted, evidence)],
    })
    return {
      commands: accepted.length,
      ...judged,
      journals: Object.values(seen).reduce((sum, { times }) => sum + times, 0),
      'new journals': Object.values(seen).reduce((sum, { anew }) => sum + anew, 0),
      'set aside': readdirSync(folder).filter((name) => /\.corrupt-[^.]*Z$/.test(name)).length,
      cancelled: load.cancelled,
    }
  },
})

/** What was in nobody's hands, or ended with a report, is not unknown whatever became of the journal. */
function* onlyWhereItMustBe({ executions, events }: Evidence): Iterable<string> {
  const handedOver = new Set(
    events.filter(({ type }) => type === 'execution.queued').map((event) => `${event.commandId} ${event.clientId}`),
  )
  for (const { commandId, clientId, status } of executions)
    if (status === 'outcome_unknown' && !handedOver.has(`${commandId} ${clientId}`))
      yield `${commandId} ${clientId} was never handed over and is unknown`
}
