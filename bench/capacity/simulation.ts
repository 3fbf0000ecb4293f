import { reconnectDelay } from '../../agent/backoff.ts'
import { percentile } from '../statistics.ts'
import { ASSUMED, DEFAULTS, type Fleet } from './fleet.ts'
import { loadOf, type Prices as ModelPrices, total } from './model.ts'
import { arrivals, createRandom } from './random.ts'
import { createNode, type Prices, type SimulatedNode, work } from './simulated-node.ts'

export interface Happening {
  seed: number
  /** A node dies at the beginning; its devices notice it within so many seconds, evenly. */
  nodeDies?: { noticedWithinSeconds: number }
  /** One command to all, posted at the beginning. */
  broadcast?: boolean
  /** It ends when all is over, or then. */
  atMostSeconds: number
}

export interface Outcome {
  seconds: number
  /** Devices that are online at the end. */
  online: number
  /** Of those that lost their connection. */
  back: { half: number; all: number; attempts: number; turnedAway: number }
  broadcast: { insertSeconds: number; completed: number; allSeconds: number }
  commands: { posted: number; done: number; left: number }
  /** The fullest tick, as a share of what there was. */
  peak: { node: number; database: number }
}

const TICK = 0.05
/** As the agent does it, see agent/agent.ts. */
const BACKOFF = { minMs: 1000, maxMs: 30_000 }

/**
 * Plays a fleet in steps of 50 ms: each node has one core, less what stands still takes of it, PostgreSQL has its cores, and what is
 * more than they can do waits. The same seed gives the same outcome.
 */
export function simulate(fleet: Fleet, price: ModelPrices, happening: Happening): Outcome {
  const random = createRandom(happening.seed)
  const load = loadOf(fleet, price)
  const { hints, idle } = load.node.cpu
  const { sweep, lostSessions, comparison, alerts } = load.database.cpu
  /** What goes on whatever happens, and is not played. */
  const nodeFree = Math.max(0, 1 - idle - hints) * TICK
  const databaseFree = Math.max(0, fleet.databaseCores - sweep - lostSessions - comparison - alerts) * TICK
  const prices: Prices = {
    connects: { node: price.connectCpu * 1e-6, database: price.connectDatabaseCpu * 1e-6 },
    commands: { node: price.commandCpu * 1e-6, database: price.commandDatabaseCpu * 1e-6 },
    broadcasts: {
      node: price.broadcastCpu * 1e-6,
      // The insert is played by itself: one statement, one core.
      database: Math.max(0, price.broadcastDatabaseCpu - price.broadcastInsert) * 1e-6,
    },
  }

  const { nodes, lost } = setUp(fleet, happening)
  const retries = new Map<number, number[]>()
  const backAt: number[] = []
  let attempts = 0
  let turnedAway = 0
  let tick = 0

  const tryAt = (device: number, seconds: number): void => {
    const at = Math.max(tick + 1, Math.round(seconds / TICK))
    const others = retries.get(at)
    if (others) others.push(device)
    else retries.set(at, [device])
  }
  const lostAt = Array.from({ length: lost }, () => random() * (happening.nodeDies?.noticedWithinSeconds ?? 0))
  const again = (device: number, now: number): void => {
    const since = lostAt[device] as number
    tryAt(device, now + reconnectDelay(BACKOFF, (now - since) * 1000, random()) / 1000)
  }
  for (const [device, since] of lostAt.entries()) again(device, since)

  const insertSeconds = happening.broadcast ? load.database.broadcastInsertSeconds : 0
  /** What waits for devices that are away. */
  const away = { devices: lost, commands: 0, broadcasts: happening.broadcast ? lost : 0 }
  let isPublished = !happening.broadcast
  const completed = { commands: 0, broadcasts: 0 }
  let allCompletedAt = 0
  let posted = 0
  const peak = { node: 0, database: 0 }

  function knock(device: number, now: number): void {
    attempts++
    const node = leastConnected(nodes)
    const isFull =
      node.connected + node.waiting.length >= DEFAULTS.MQTT_MAX_CONNECTIONS ||
      node.waiting.length >= DEFAULTS.MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS + DEFAULTS.MQTT_MAX_WAITING_PER_ADDRESS
    if (!isFull) return void node.waiting.push({ device, since: now })
    turnedAway++
    again(device, now)
  }

  function expire(node: SimulatedNode, now: number): void {
    const most = Math.min(DEFAULTS.MQTT_ADMISSION_SECONDS, ASSUMED.agentConnectTimeoutSeconds)
    const end = node.waiting.findIndex(({ since }) => now - since <= most)
    const expired = node.waiting.splice(0, end === -1 ? node.waiting.length : end)
    turnedAway += expired.length
    for (const { device } of expired) again(device, now)
  }

  /** A device is back: what waited for it begins. */
  function admit(node: SimulatedNode, now: number): void {
    node.connected++
    backAt.push(now)
    const commands = Math.round(away.commands / away.devices)
    const broadcasts = isPublished ? Math.min(1, away.broadcasts) : 0
    away.devices--
    away.commands -= commands
    away.broadcasts -= broadcasts
    node.commands += commands
    node.broadcasts += broadcasts
  }

  function postCommands(): void {
    const count = arrivals(load.commandsPerSecond * TICK, random)
    posted += count
    for (let index = 0; index < count; index++) {
      const isAway = away.devices > 0 && random() < away.devices / fleet.devices
      if (isAway) away.commands++
      else (nodes[Math.floor(random() * nodes.length)] as SimulatedNode).commands++
    }
  }

  const isOver = (): boolean =>
    away.devices === 0 && isPublished && away.broadcasts === 0 && nodes.every(({ broadcasts }) => broadcasts === 0)

  for (; tick * TICK < happening.atMostSeconds && !isOver(); tick++) {
    const now = tick * TICK
    for (const device of retries.get(tick) ?? []) knock(device, now)
    retries.delete(tick)
    for (const node of nodes) expire(node, now)
    postCommands()
    const isInserting = !isPublished && now < insertSeconds
    if (!isPublished && !isInserting) {
      isPublished = true
      // Whoever came back meanwhile is among the connected.
      away.broadcasts = away.devices
      for (const node of nodes) node.broadcasts += node.connected
    }
    const free = Math.max(0, databaseFree - (isInserting ? TICK : 0))
    const { done, nodeSeconds, databaseSeconds } = work(nodes, prices, nodeFree, free)
    for (const [index, { connects, commands, broadcasts }] of done.entries()) {
      const node = nodes[index] as SimulatedNode
      for (const _ of node.waiting.splice(0, connects)) admit(node, now + TICK)
      completed.commands += commands
      completed.broadcasts += broadcasts
      if (broadcasts > 0) allCompletedAt = now + TICK
    }
    peak.node = Math.max(peak.node, 1 - (nodeFree - nodeSeconds) / TICK)
    peak.database = Math.max(peak.database, 1 - (free - databaseSeconds) / (fleet.databaseCores * TICK))
  }

  return {
    seconds: tick * TICK,
    online: total(Object.fromEntries(nodes.map(({ connected }, index) => [index, connected]))),
    back: {
      half: lost === 0 ? 0 : percentile(backAt, 0.5),
      all: backAt.length < lost ? Number.POSITIVE_INFINITY : Math.max(0, backAt.at(-1) ?? 0),
      attempts: lost === 0 ? 0 : attempts / lost,
      turnedAway,
    },
    broadcast: {
      insertSeconds,
      completed: completed.broadcasts,
      allSeconds: !happening.broadcast
        ? 0
        : completed.broadcasts < fleet.devices
          ? Number.POSITIVE_INFINITY
          : allCompletedAt,
    },
    commands: {
      posted,
      done: completed.commands,
      left: away.commands + nodes.reduce((sum, { commands }) => sum + commands, 0),
    },
    peak,
  }
}

/** Devices are spread evenly; those of a node that dies are lost, and the others live on. */
function setUp({ devices, nodes: count }: Fleet, { nodeDies }: Happening): { nodes: SimulatedNode[]; lost: number } {
  const nodes = Array.from({ length: count }, (_, index) =>
    createNode(Math.floor(devices / count) + (index < devices % count ? 1 : 0)),
  )
  if (!nodeDies) return { nodes, lost: 0 }
  if (count < 2) throw new Error('of one node none can die: there is no other to come back to')
  const [dead, ...living] = nodes
  return { nodes: living, lost: (dead as SimulatedNode).connected }
}

/** As the balancer of deploy/haproxy.cfg chooses. */
const leastConnected = (nodes: SimulatedNode[]): SimulatedNode =>
  nodes.reduce((least, node) =>
    node.connected + node.waiting.length < least.connected + least.waiting.length ? node : least,
  )
