import type { HostOrders } from './agent-host.ts'
import { type AgentHost, startAgents } from './agents.ts'
import { create } from './create.ts'
import { type Fleet, startFleet } from './fleet.ts'
import type { Accepted } from './load.ts'
import type { Luck } from './luck.ts'
import type { Evidence } from './oracle.ts'
import type { Stand } from './stand.ts'
import { type SteadyLoad, startSteadyLoad } from './steady-load.ts'
import { untilItHappens, type Work } from './work.ts'

/** Agents that are quickly back, under a load that lasts until the last kill. */
export async function startKillable(
  stand: Stand,
  sizes: { agents: number; hosts: number },
  luck: Luck,
): Promise<{ fleet: Fleet; load: SteadyLoad }> {
  const reconnect = { minMs: 50, maxMs: 500 }
  const fleet = await startFleet(stand, { ...sizes, plain: 0 }, { agents: { reconnect } })
  const { clientIds, zones } = fleet
  return { fleet, load: startSteadyLoad(stand, { clientIds, zones, luck, callers: 3, pauseMs: 80 }) }
}

export const clientsOf = (fleet: Fleet, host: number): string[] =>
  (fleet.orders[host] as HostOrders).devices.map(({ id }) => id)

/** Starts a process of agents; what was left of the one before it is killed. */
export async function startHost(
  stand: Stand,
  fleet: Fleet,
  host: number,
  killAt?: HostOrders['killAt'],
): Promise<AgentHost> {
  await fleet.hosts[host]?.kill()
  const orders = fleet.orders[host] as HostOrders
  const started = stand.use(await startAgents({ ...orders, ...(killAt ? { killAt } : {}) }))
  fleet.hosts[host] = started
  return started
}

/** Longer than the way from its beginning to the kill; what may be repeated takes as long again in the next attempt. */
const LONG: Record<'print' | 'index', Work> = {
  print: { thinkMs: 60_000, fails: false },
  index: { thinkMs: 3000, fails: false },
}

/**
 * Kills a process when a handler of each of its devices is in the middle: it has happened, and nobody wrote down how it ended.
 * Answers the commands.
 */
export async function killInHandlers(
  stand: Stand,
  fleet: Fleet,
  host: number,
  accepted: Accepted[],
  action: 'print' | 'index' = 'print',
): Promise<string[]> {
  const clients = clientsOf(fleet, host)
  // Priority 10 passes whatever else waits.
  const running = await Promise.all(
    clients.map((clientId) => create(stand, accepted, { clientId, action, payload: LONG[action], priority: 10 })),
  )
  const ids = running.map(({ id }) => id)
  await untilItHappens(stand.directory, ids)
  await fleet.hosts[host]?.kill()
  return ids
}

/** Nobody can tell what came of what may be done only once and was killed in the middle, whatever became of the journal. */
export function* interruptedAreUnknown(interrupted: string[], { executions }: Evidence): Iterable<string> {
  const status = new Map(executions.map(({ commandId, ...execution }) => [commandId, execution.status]))
  for (const id of interrupted)
    if (status.get(id) !== 'outcome_unknown') yield `${id} was interrupted in its handler and is ${status.get(id)}`
}
