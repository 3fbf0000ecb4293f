/** What a node has to do for others, and what one of each takes. */
export type WorkKind = 'connects' | 'commands' | 'broadcasts'
export const WORK_KINDS: readonly WorkKind[] = ['connects', 'commands', 'broadcasts']

export type Work = Record<WorkKind, number>
const noWork = (): Work => ({ connects: 0, commands: 0, broadcasts: 0 })

interface Price {
  /** Seconds of the node's one core, and of any core of PostgreSQL. */
  node: number
  database: number
}
export type Prices = Record<WorkKind, Price>

/** A node of the simulation: what it has to do, in order of arrival for the logins. */
export interface SimulatedNode {
  connected: number
  /** Devices before their login is through, by the tick in which they came. */
  waiting: { device: number; since: number }[]
  commands: number
  broadcasts: number
  /** What was begun of one of each. */
  begun: Work
}

export const createNode = (connected: number): SimulatedNode => ({
  connected,
  waiting: [],
  commands: 0,
  broadcasts: 0,
  begun: noWork(),
})

const left = (node: SimulatedNode): Work => ({
  connects: node.waiting.length,
  commands: node.commands,
  broadcasts: node.broadcasts,
})

/** What each would do in a tick by itself: everything, or of each kind the same share. */
function wished(node: SimulatedNode, prices: Prices, seconds: number): Work {
  const work = left(node)
  const needed = WORK_KINDS.reduce(
    (sum, kind) => sum + Math.max(0, work[kind] - node.begun[kind]) * prices[kind].node,
    0,
  )
  const share = needed > seconds ? seconds / needed : 1
  const wish = noWork()
  for (const kind of WORK_KINDS) wish[kind] = Math.max(0, work[kind] - node.begun[kind]) * share
  return wish
}

/** The seconds that were used, and what each node has done. */
export interface Tick {
  done: Work[]
  databaseSeconds: number
  /** Of the busiest node. */
  nodeSeconds: number
}

/**
 * One tick of all nodes: each has `nodeSeconds` of its core, all together have `databaseSeconds` of PostgreSQL's, and whoever shares
 * gets the same part of what it wishes. What is done is taken away, but for the logins: those the caller takes in their order.
 */
export function work(nodes: SimulatedNode[], prices: Prices, nodeSeconds: number, databaseSeconds: number): Tick {
  const wishes = nodes.map((node) => wished(node, prices, nodeSeconds))
  const cost = (of: 'node' | 'database', wish: Work): number =>
    WORK_KINDS.reduce((sum, kind) => sum + wish[kind] * prices[kind][of], 0)
  const needed = wishes.reduce((sum, wish) => sum + cost('database', wish), 0)
  const share = needed > databaseSeconds ? databaseSeconds / needed : 1
  const done = nodes.map((node, index) => {
    const whole = noWork()
    for (const kind of WORK_KINDS) {
      const begun = node.begun[kind] + (wishes[index]?.[kind] ?? 0) * share
      // A hair below a whole one is a whole one.
      whole[kind] = Math.min(left(node)[kind], Math.floor(begun + 1e-9))
      node.begun[kind] = begun - whole[kind]
    }
    node.commands -= whole.commands
    node.broadcasts -= whole.broadcasts
    return whole
  })
  return {
    done,
    databaseSeconds: needed * share,
    nodeSeconds: Math.max(0, ...wishes.map((wish) => cost('node', wish) * share)),
  }
}
