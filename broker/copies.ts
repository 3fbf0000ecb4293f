import type { Aedes } from 'aedes'
import type { Tell } from '../control/cluster/hints.ts'
import type { Settings } from '../schemas/settings.ts'
import { parseTopic } from '../schemas/topics.ts'
import type { Connections } from './connections.ts'

/** Copies of the traffic for those who listen to it on other nodes. */
export interface Copies {
  /** Somebody may have come or gone who listens here. */
  look(): void
  listensElsewhere(node: string, wanted: boolean): void
  /** Whether another node has somebody who listens. */
  areWanted(): boolean
  /** Published here for somebody else's sake: no copy of it goes out. */
  isCopy(payload: Buffer): void
}

/** A node that has not said for so long that somebody listens there has nobody, or is gone. */
const WANTED_MS = 10_000

/** `look` has to be called every second or so. */
export function createCopies(deps: { aedes: Aedes; settings: Settings; connections: Connections; tell: Tell }): Copies {
  const root = deps.settings.MQTT_TOPIC_ROOT
  /** Until when each node wants them, on the clock of performance.now(). */
  const wanted = new Map<string, number>()
  const copies = new WeakSet<Buffer>()
  let listened = false
  let toldAt = 0

  deps.aedes.on('publish', ({ topic, payload }) => {
    if (wanted.size === 0 || copies.has(payload as Buffer)) return
    // What is retained goes to every node anyway.
    if (parseTopic(root, topic)?.spec.retain === false) deps.tell('copy', { topic, payload: payload.toString() })
  })

  return {
    look() {
      const now = performance.now()
      for (const [node, until] of wanted) if (until < now) wanted.delete(node)
      const listens = deps.connections.hasListener()
      if (listens === listened && (!listens || now - toldAt < WANTED_MS / 3)) return
      listened = listens
      toldAt = now
      deps.tell('listening', { wanted: listens })
    },
    listensElsewhere(node, isWanted) {
      if (isWanted) wanted.set(node, performance.now() + WANTED_MS)
      else wanted.delete(node)
    },
    areWanted: () => wanted.size > 0,
    isCopy: (payload) => void copies.add(payload),
  }
}
