import { Settings } from '../../schemas/settings.ts'

/** A fleet, what is asked of it, and what it runs on. */
export interface Fleet {
  devices: number
  nodes: number
  commandsPerDeviceHour: number
  broadcastsPerDay: number
  /** How often a device loses its connection and comes back. */
  reconnectsPerDeviceDay: number
  databaseCores: number
}

/** What everybody has who has set nothing. */
export const DEFAULTS = Settings.parse({})

/** What is neither measured nor a setting. Each is named in docs/scaling.md. */
export const ASSUMED = {
  commandsPerDeviceHour: 6,
  broadcastsPerDay: 2,
  reconnectsPerDeviceDay: 4,
  databaseCores: 16,
  /** Of a core: above it queues grow faster than the load. */
  usableCpu: 0.7,
  /** Heap and buffers of one node; more needs --max-old-space-size. */
  nodeMemoryMiB: 4096,
  /** max_connections of PostgreSQL, as one would set it for many nodes; its own default is 100. */
  databaseConnections: 500,
  /** Kept for people and for backups. */
  databaseConnectionsElsewhere: 10,
  databaseDiskGiB: 4096,
  /** One disk of its own for WAL. */
  walMiBPerSecond: 200,
  /** Messages that one Redis hands out. */
  redisDeliveriesPerSecond: 200_000,
  /** The agent's, see agent/agent.ts. */
  agentConnectTimeoutSeconds: 30,
} as const

export const fleetOf = (devices: number, nodes: number): Fleet => ({
  devices,
  nodes,
  commandsPerDeviceHour: ASSUMED.commandsPerDeviceHour,
  broadcastsPerDay: ASSUMED.broadcastsPerDay,
  reconnectsPerDeviceDay: ASSUMED.reconnectsPerDeviceDay,
  databaseCores: ASSUMED.databaseCores,
})

/** The first is one that can be measured as a whole. */
export const FLEETS: readonly Fleet[] = [
  fleetOf(10_000, 2),
  fleetOf(100_000, 4),
  fleetOf(100_000, 8),
  fleetOf(1_000_000, 25),
  fleetOf(1_000_000, 50),
]
