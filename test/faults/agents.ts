import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { HostOrders } from './agent-host.ts'
import type { TwinOrders } from './twin-host.ts'

/** A running process of devices. */
export interface AgentHost extends AsyncDisposable {
  process: ChildProcess
  /** Resolves when it has ended, however. */
  ended: Promise<void>
  kill(): Promise<void>
  /** The agents stop as they would on a device that is switched off properly. */
  stop(): Promise<void>
}

/** Starts a process of agents; resolves when each has opened its journal. */
export const startAgents = (orders: HostOrders, env: Record<string, string> = {}): Promise<AgentHost> =>
  startHost('./agent-host.ts', orders, env)

/** Starts a process of devices that share their id with an agent, or have two ways to the server. */
export const startTwins = (orders: TwinOrders): Promise<AgentHost> => startHost('./twin-host.ts', orders, {})

async function startHost(
  program: string,
  orders: HostOrders | TwinOrders,
  env: Record<string, string>,
): Promise<AgentHost> {
  const child = fork(fileURLToPath(new URL(program, import.meta.url)), { env: { ...process.env, ...env } })
  const ended = once(child, 'exit').then(() => undefined)
  child.send(orders)
  await Promise.race([once(child, 'message'), ended])
  const host: AgentHost = {
    process: child,
    ended,
    async kill() {
      child.kill('SIGKILL')
      await ended
    },
    async stop() {
      if (child.connected) child.send('stop', () => undefined)
      await ended
    },
    [Symbol.asyncDispose]: () => host.kill(),
  }
  return host
}
