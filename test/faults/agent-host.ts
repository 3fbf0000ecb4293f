import { join } from 'node:path'
import { Agent } from '../../agent/agent.ts'
import type { Backoff } from '../../agent/backoff.ts'
import { Journal } from '../../agent/journal.ts'
import { handlersOf } from './device-handlers.ts'
import { openPresenceLog } from './presence-log.ts'
import { openEffects } from './work.ts'

/** A process of devices: each the agent that real devices run, with an effect that can be counted from outside. */
export interface HostOrders {
  url: string
  directory: string
  devices: { id: string; clientKey: string }[]
  /** Ends the process with SIGKILL before or after the nth of these steps of a journal. */
  killAt?: { when: 'before' | 'after'; step: JournalStep; nth: number }
  keepaliveSeconds?: number
  connectTimeoutMs?: number
  reconnect?: Backoff
  /** Where its agents write down from when to when each was connected. */
  presenceLog?: string
}

export const JOURNAL_STEPS = ['received', 'cancelled', 'started', 'finished', 'gaveUp', 'acknowledged'] as const
export type JournalStep = (typeof JOURNAL_STEPS)[number]

process.once('disconnect', () => process.exit(0))
process.once('message', (orders: HostOrders) => void begin(orders))

async function begin(orders: HostOrders): Promise<void> {
  if (orders.killAt) dieAt(orders.killAt)
  const effects = openEffects(join(orders.directory, 'effects.jsonl'))
  const agents = orders.devices.map(
    ({ id, clientKey }) =>
      new Agent({
        url: orders.url,
        clientId: id,
        clientKey,
        journal: join(orders.directory, `${id}.sqlite`),
        handlers: handlersOf(id, effects),
        concurrency: 2,
        ...(orders.keepaliveSeconds ? { keepaliveSeconds: orders.keepaliveSeconds } : {}),
        ...(orders.connectTimeoutMs ? { connectTimeoutMs: orders.connectTimeoutMs } : {}),
        ...(orders.reconnect ? { reconnect: orders.reconnect } : {}),
      }),
  )
  if (orders.presenceLog) {
    const log = openPresenceLog(orders.presenceLog)
    for (const [index, agent] of agents.entries()) {
      const door = log.door((orders.devices[index] as { id: string }).id, 'mqtt')
      agent.on('connected', door.opened)
      agent.on('disconnected', door.closed)
    }
  }
  for (const agent of agents) await agent.start()
  process.send?.('started')
  process.once('message', async () => {
    await Promise.all(agents.map((agent) => agent.stop()))
    process.exit(0)
  })
}

/** A kill point from outside: the agent itself knows nothing of it. */
function dieAt({ when, step, nth }: NonNullable<HostOrders['killAt']>): void {
  // biome-ignore lint/suspicious/noExplicitAny: whatever the step takes, it is passed on
  const steps = Journal.prototype as any
  const original = steps[step]
  let left = nth
  steps[step] = function (...args: unknown[]) {
    const now = --left === 0
    if (now && when === 'before') process.kill(process.pid, 'SIGKILL')
    const answer = original.apply(this, args)
    if (now) process.kill(process.pid, 'SIGKILL')
    return answer
  }
}
