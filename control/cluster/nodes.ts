import { randomUUID } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import type { Logger } from 'pino'
import type { Db } from '../../db/connect.ts'
import { endNodes, type Node, type OtherNode, renewNode } from '../../db/nodes.ts'
import { type Clock, createClock } from '../clock.ts'

/** This process among those that serve the same database. */
export interface Nodes {
  readonly id: string
  /** Takes a lease before anything is done in this node's name. */
  join(): Promise<void>
  /** Whether this is the one that does what has to be done once: the oldest node that lives, as of the last renewal. */
  leads(): boolean
  /** Living nodes beside this one, as of the last renewal. */
  others(): number
  /** On the clock of performance.now(), since when there is no trace of any, as of the last renewal; undefined: there is. */
  aloneSince(): number | undefined
  start(): void
  /** Gives the lease back: call it when no session is left. */
  stop(): Promise<void>
}

export interface NodesDeps {
  db: Db
  log: Logger
  leaseSeconds: number
  /** There are sessions of nodes that live no more: they have to be ended. */
  onDead(): Promise<void>
}

/** A lease may miss so many renewals. */
const RENEWALS_PER_LEASE = 5

/** Nodes of this very process, which the process id does not tell apart from one that it is the successor of. */
const livingHere = new Set<string>()

export function createNodes({ db, log, leaseSeconds, onDead }: NodesDeps): Nodes {
  const id = randomUUID()
  const me: Node = {
    id,
    name: `${hostname()}:${process.pid}`,
    processSpace: processSpace(),
    processId: process.pid,
  }
  let leads = false
  let others = 0
  let aloneSince: number | undefined
  /** On the clock of performance.now(): the last renewal, and since when there was none too late. */
  let renewedAt = Number.NEGATIVE_INFINITY
  let heldSince = 0
  const clock: Clock = createClock({
    what: 'lease',
    log,
    intervalSeconds: leaseSeconds / RENEWALS_PER_LEASE,
    pass: async () => {
      if (await renew()) await onDead()
    },
  })

  /** Answers whether nodes have died. */
  async function renew(): Promise<boolean> {
    const found = await renewNode(db, me, leaseSeconds)
    const mayJudge = holdsLease()
    const gone = found.filter((other) => isGone(me, other))
    const living = found.filter((other) => !other.expired && !gone.includes(other))
    const dead = mayJudge ? found.filter((other) => !living.includes(other)) : gone
    others = living.length
    // Whoever is not known to live may have, and have done something, since the last renewal.
    aloneSince = found.length > 0 ? undefined : (aloneSince ?? performance.now())
    leads = !living.some(({ older }) => older)
    if (dead.length === 0 || !leads) return false
    log.warn({ nodes: dead.map(({ name }) => name) }, 'nodes are gone: their sessions are ended')
    await endNodes(
      db,
      dead.map(({ id }) => id),
    )
    return true
  }

  /**
   * Whether a lease that is over says something about its node: while PostgreSQL is down nobody can renew, and whoever comes back
   * first would take all others for dead. So one waits for a whole lease after one's own was late, and after the start.
   */
  function holdsLease(): boolean {
    const now = performance.now()
    if (now - renewedAt > (leaseSeconds * 1000) / 2) heldSince = now
    renewedAt = now
    return now - heldSince >= leaseSeconds * 1000
  }

  return {
    id,
    async join() {
      livingHere.add(id)
      await renew()
    },
    leads: () => leads,
    others: () => others,
    aloneSince: () => aloneSince,
    start: clock.start,
    async stop() {
      await clock.stop()
      livingHere.delete(id)
      // A database that is down keeps the row until the lease is over.
      await endNodes(db, [id]).catch((error: Error) => log.warn({ reason: error.message }, 'lease is not given back'))
    },
  }
}

/** A process of this machine that has ended needs no waiting for its lease: a restarted server goes on at once. */
function isGone(me: Node, other: OtherNode): boolean {
  if (me.processSpace === null || me.processSpace !== other.processSpace) return false
  if (other.processId === me.processId) return !livingHere.has(other.id)
  try {
    process.kill(other.processId, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}

/** Names this run of the machine and the namespace of its process ids; null where there is no telling (not Linux). */
function processSpace(): string | null {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    return `${boot} ${readlinkSync('/proc/self/ns/pid')}`
  } catch {
    return null
  }
}
