import type { Target } from '../../schemas/commands.ts'

/**
 * How many commands more the queues of clients take at least, so that PostgreSQL need not count what waits for each of them. It is
 * what a statement has counted, less what this node stored since: that a queue gets shorter is not looked at, and a client of which
 * nothing is left here is counted again. With other nodes, which store as well, nothing is known.
 */
export interface QueueRoom {
  /** For the commands of one statement, as it begins. Call `end` whatever becomes of it. */
  begin(targets: Target[]): Places
  /** Something that was not pending is so again. */
  requeued(clientId: string): void
}

interface Places {
  /** Who has room for its command, whatever else happens meanwhile; the others are to be counted. In the order of the targets. */
  sure: boolean[]
  /** For how many more there is room behind each, where it was counted. Nothing, if it is not known what was stored. */
  end(left?: (number | null | undefined)[]): void
}

export interface QueueRoomDeps {
  /** Since when no other node stores commands; undefined: others do. */
  aloneSince(): number | undefined
}

/** Of whom something is known at once: some 10 MB. */
const MAX_CLIENTS = 100_000

export function createQueueRoom({ aloneSince }: QueueRoomDeps): QueueRoom {
  const room = new Map<string, number>()
  /** Statements on their way, and what a count may have missed: those that began, and what came back. */
  let running = 0
  let news = 0
  let since: number | undefined

  function take(clientId: string): boolean {
    const places = room.get(clientId) ?? 0
    if (places > 0) room.set(clientId, places - 1)
    return places > 0
  }

  return {
    begin(targets) {
      // Whom a group is for, only PostgreSQL knows.
      if (aloneSince() !== since || targets.some(({ kind }) => kind !== 'client')) room.clear()
      since = aloneSince()
      const isAlone = running === 0
      running++
      const begun = ++news
      return {
        sure: targets.map((target) => target.kind === 'client' && take(target.clientId)),
        end(left = []) {
          running--
          if (!isAlone || news !== begun || since === undefined || since !== aloneSince()) return
          if (room.size > MAX_CLIENTS) room.clear()
          for (const [at, places] of left.entries()) {
            const target = targets[at]
            if (target?.kind === 'client' && typeof places === 'number') room.set(target.clientId, places)
          }
        },
      }
    },
    requeued(clientId) {
      news++
      take(clientId)
    },
  }
}
