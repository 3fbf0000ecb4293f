import { join } from 'node:path'
import type { HostOrders } from './agent-host.ts'
import { type AgentHost, startAgents } from './agents.ts'
import { type PlainDevice, startPlainDevice } from './plain-device.ts'
import type { Stand } from './stand.ts'
import { ACTIONS } from './work.ts'

/** The devices of a stand: agents in a few processes, and some without a journal. */
export interface Fleet {
  hosts: AgentHost[]
  plain: PlainDevice[]
  clientIds: string[]
  plainIds: ReadonlySet<string>
  zones: string[]
  /** What a process of agents was started with: to start it again after a kill. */
  orders: HostOrders[]
  /** Agents stop as when a device is switched off properly, so that their journals are at rest. */
  stop(): Promise<void>
  /** Those processes of agents that have ended start again, each as it was started first. */
  restart(): Promise<void>
}

export const ZONES = ['A', 'B', 'C']

export async function registerActions(stand: Stand): Promise<void> {
  for (const [name, action] of Object.entries(ACTIONS)) {
    const { status } = await stand.api.send('PUT', `/actions/${name}`, action)
    if (status >= 300) throw new Error(`action ${name}: ${status}`)
  }
}

interface FleetOptions {
  url?: string
  /** Of every process of agents, or of each. */
  env?: Record<string, string> | ((host: number) => Record<string, string>)
  keepaliveSeconds?: number
  /** How its agents connect, beyond that. */
  agents?: Pick<HostOrders, 'connectTimeoutMs' | 'reconnect'>
}

/** Registers the actions and the clients, and starts them. */
export async function startFleet(
  stand: Stand,
  sizes: { agents: number; hosts: number; plain: number },
  options: FleetOptions = {},
): Promise<Fleet> {
  await registerActions(stand)
  const ids = (prefix: string, count: number): string[] =>
    Array.from({ length: count }, (_, index) => `${prefix}-${String(index + 1).padStart(3, '0')}`)
  const registered = async (list: string[]): Promise<{ id: string; clientKey: string }[]> => {
    const clients = []
    for (const [index, id] of list.entries())
      clients.push({ id, clientKey: await stand.register(id, { zones: [ZONES[index % ZONES.length]] }) })
    return clients
  }
  const agents = await registered(ids('agent', sizes.agents))
  const plainClients = await registered(ids('plain', sizes.plain))
  const directory = join(stand.directory, 'devices')
  const orders = Array.from({ length: sizes.hosts }, (_, host) => ({
    url: options.url ?? stand.mqtt,
    directory,
    devices: agents.filter((_device, index) => index % sizes.hosts === host),
    ...(options.keepaliveSeconds ? { keepaliveSeconds: options.keepaliveSeconds } : {}),
    ...options.agents,
  }))
  const { env = {} } = options
  const start = async (order: HostOrders, host: number): Promise<AgentHost> =>
    stand.use(await startAgents(order, typeof env === 'function' ? env(host) : env))
  const hosts = await Promise.all(orders.map(start))
  const mqttPort = Number(new URL(options.url ?? stand.mqtt).port)
  const plain = plainClients.map(({ id: clientId, clientKey }) =>
    stand.use(startPlainDevice({ mqttPort, clientId, clientKey, directory })),
  )
  return {
    hosts,
    plain,
    clientIds: [...agents, ...plainClients].map(({ id }) => id),
    plainIds: new Set(plainClients.map(({ id }) => id)),
    zones: ZONES,
    orders,
    restart: async () => {
      await Promise.all(
        orders.map(async (order, host) => {
          if (hosts[host]?.process.exitCode !== null || hosts[host]?.process.signalCode !== null)
            hosts[host] = await start(order, host)
        }),
      )
    },
    stop: async () => {
      await Promise.all([...hosts.map((host) => host.stop()), ...plain.map((device) => device[Symbol.asyncDispose]())])
    },
  }
}
