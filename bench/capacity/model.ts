import { COSTS, type CostName, type Costs } from './costs.ts'
import { ASSUMED, DEFAULTS, type Fleet } from './fleet.ts'

const DAY_SECONDS = 86_400
const GIB = 2 ** 30
const US = 1e-6

/** Of the product's code: what stands there once, not measured but counted. */
const COUNTED = {
  /** Sessions in one statement of the sweep. */
  sweptPerStatement: 500,
  /** Sweeps between two looks for lost sessions, or two comparisons of 5,000 clients. */
  sweepsPerRareLook: 30,
  /** The create, the read for the claim, and a store each for claim, PUBACK, running and completed; under load one serves many. */
  statementsPerCommand: 6,
  /** One that opens the session and one for its status, two for what is open and what can be claimed, one that ends it. */
  statementsPerReconnect: 5,
  /** The lease, and what the leader looks for. */
  statementsPerNode: 1,
  statementsOfLeader: 10,
  /** commands, executions, and five events. */
  rowsPerCommand: 7,
  /** An execution and four events; the command and its event are there once. */
  rowsPerBroadcastExecution: 5,
  /** Two events of presence. */
  rowsPerReconnect: 2,
  /** Status as the server says it, as the device says it, and offline. */
  hintsPerReconnect: 3,
  /** Every half second each node tells Redis something that only it hears. */
  beatsPerSecond: 2,
} as const

/** What a fleet takes in the steady state. Times are shares of a core, or seconds of it in a second. */
export interface Load {
  commandsPerSecond: number
  reconnectsPerSecond: number
  node: {
    devices: number
    /** Once one of the nodes has died; with one node, all of them. */
    devicesWithoutOne: number
    cpu: { idle: number; commands: number; broadcasts: number; reconnects: number; hints: number }
    memoryMiB: { itself: number; registered: number; connected: number }
  }
  database: {
    cpu: {
      sweep: number
      lostSessions: number
      comparison: number
      alerts: number
      commands: number
      broadcasts: number
      reconnects: number
    }
    /** At most: a busy node's statements serve many commands. */
    statementsPerSecond: number
    rowsPerDay: number
    diskPerDayGiB: number
    diskKeptGiB: number
    walMiBPerSecond: number
    connections: number
    broadcastInsertSeconds: number
  }
  redis: { publishedPerSecond: number; deliveredPerSecond: number }
}

export const total = (parts: Record<string, number>): number =>
  Object.values(parts).reduce((sum, part) => sum + part, 0)

export type Prices = Record<CostName, number>

export const pricesOf = (costs: Costs): Prices =>
  Object.fromEntries((Object.keys(COSTS) as CostName[]).map((name) => [name, costs[name].value])) as Prices

/** A hint says that there may be work, if the device is on another node than the caller, and one that the command is settled. */
const hintsPerCommand = ({ nodes }: Fleet): number => (nodes === 1 ? 0 : (nodes - 1) / nodes + 1)

export function loadOf(fleet: Fleet, price: Prices): Load {
  const { devices, nodes, broadcastsPerDay } = fleet
  const sweepSeconds = DEFAULTS.SWEEP_INTERVAL_SECONDS
  const rareSeconds = sweepSeconds * COUNTED.sweepsPerRareLook
  const own = devices / nodes
  const commands = (devices * fleet.commandsPerDeviceHour) / 3600
  const reconnects = (devices * fleet.reconnectsPerDeviceDay) / DAY_SECONDS
  const broadcastExecutions = (devices * broadcastsPerDay) / DAY_SECONDS
  const executionsPerDay = (commands + broadcastExecutions) * DAY_SECONDS
  // Rather too many: what is said in one turn of the loop is one message. Of a broadcast it mostly is.
  const hints = commands * hintsPerCommand(fleet) + (nodes === 1 ? 0 : reconnects * COUNTED.hintsPerReconnect)
  const published = hints + nodes * COUNTED.beatsPerSecond
  const swept = Math.min(own, DEFAULTS.SWEEP_SESSIONS)
  const sweeps = (nodes * Math.ceil(swept / COUNTED.sweptPerStatement)) / sweepSeconds
  const diskPerDayGiB = (executionsPerDay * price.commandDisk) / GIB
  return {
    commandsPerSecond: commands,
    reconnectsPerSecond: reconnects,
    node: {
      devices: own,
      devicesWithoutOne: devices / Math.max(1, nodes - 1),
      cpu: {
        idle: own * price.idleCpu * US,
        commands: (commands / nodes) * price.commandCpu * US,
        broadcasts: (broadcastExecutions / nodes) * price.broadcastCpu * US,
        reconnects: (reconnects / nodes) * price.connectCpu * US,
        hints: ((hints * (nodes - 1)) / nodes) * price.hintCpu * US,
      },
      memoryMiB: {
        itself: price.memoryOfNode,
        registered: (devices * price.memoryOfRegistered) / 1024,
        connected: (own * price.memoryOfConnected) / 1024,
      },
    },
    database: {
      cpu: {
        sweep: (nodes * swept * price.sweepCpu * US) / sweepSeconds,
        lostSessions: (nodes * devices * price.lostSessionsCpu * US) / rareSeconds,
        comparison: nodes === 1 ? 0 : (nodes * price.comparisonCpu * US) / rareSeconds,
        alerts: (price.alertSliceCpu * US) / sweepSeconds,
        commands: commands * price.commandDatabaseCpu * US,
        broadcasts: broadcastExecutions * price.broadcastDatabaseCpu * US,
        reconnects: reconnects * price.connectDatabaseCpu * US,
      },
      statementsPerSecond:
        sweeps +
        commands * COUNTED.statementsPerCommand +
        reconnects * COUNTED.statementsPerReconnect +
        nodes * COUNTED.statementsPerNode +
        COUNTED.statementsOfLeader,
      rowsPerDay:
        (commands * COUNTED.rowsPerCommand +
          broadcastExecutions * COUNTED.rowsPerBroadcastExecution +
          reconnects * COUNTED.rowsPerReconnect) *
        DAY_SECONDS,
      diskPerDayGiB,
      diskKeptGiB: diskPerDayGiB * DEFAULTS.RETENTION_DAYS,
      walMiBPerSecond: ((commands + broadcastExecutions) * price.commandWal) / 2 ** 20,
      connections: nodes * DEFAULTS.DATABASE_POOL,
      broadcastInsertSeconds: devices * price.broadcastInsert * US,
    },
    redis:
      nodes === 1
        ? { publishedPerSecond: 0, deliveredPerSecond: 0 }
        : { publishedPerSecond: published, deliveredPerSecond: hints * nodes + nodes * COUNTED.beatsPerSecond },
  }
}

export interface Use {
  resource: string
  used: number
  limit: number
  /** 1: nothing is left. */
  share: number
}

/** What there is only so much of, fullest first. */
export function usesOf(fleet: Fleet, { node, database, redis }: Load): Use[] {
  const { usableCpu } = ASSUMED
  const uses: [resource: string, used: number, limit: number][] = [
    ['CPU of a node (one core)', total(node.cpu), usableCpu],
    ['memory of a node', total(node.memoryMiB), ASSUMED.nodeMemoryMiB],
    [
      'sockets of a node when one has died (MQTT_MAX_CONNECTIONS)',
      node.devicesWithoutOne,
      DEFAULTS.MQTT_MAX_CONNECTIONS,
    ],
    ['CPU of PostgreSQL', total(database.cpu), fleet.databaseCores * usableCpu],
    [
      'connections to PostgreSQL',
      database.connections,
      ASSUMED.databaseConnections - ASSUMED.databaseConnectionsElsewhere,
    ],
    [
      'the insert of a broadcast (DATABASE_TIMEOUT_SECONDS)',
      database.broadcastInsertSeconds,
      DEFAULTS.DATABASE_TIMEOUT_SECONDS,
    ],
    ['disk of PostgreSQL (RETENTION_DAYS)', database.diskKeptGiB, ASSUMED.databaseDiskGiB],
    ['WAL', database.walMiBPerSecond, ASSUMED.walMiBPerSecond],
    ['Redis', redis.deliveredPerSecond, ASSUMED.redisDeliveriesPerSecond],
  ]
  return uses
    .map(([resource, used, limit]) => ({ resource, used, limit, share: used / limit }))
    .toSorted((a, b) => b.share - a.share)
}
