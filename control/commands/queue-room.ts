import type { Target } from '../../schemas/commands.ts'

/**
 * For how many commands more the queues of clients have room at least, so that PostgreSQL need not count what waits for each of
 * them: what a statement has counted, less what was stored since. That a queue gets shorter is not looked at; a client of whose room
 * nothing is left here is counted again. With other nodes, which store as well, nothing is known.
 */
export interface QueueRoom {
  /** For the commands of one statement, as it begins. Call `end` whatever becomes of it. */
  begin(targets: Target[]): Places
  /** Something that was not pending is so again. */
  requeued(clientId: string): void
  /** Nobody knows what was stored: everything is counted again. */
  forget(): void
}

interface Places {
  /** Who has room for its command; the others are to be counted. In the order of the targets. */
  sure: boolean[]
  /** The room that is left behind each of them at least, where it was counted; nothing if the statement has failed. */
  end(room?: (number | null | undefined)[]): void
}

export interface QueueRoomDeps {
  /** Since when no other node stores commands, as of the last renewal of the lease; undefined: others do. */
  aloneSince(): number | undefined
}

/** Of whom something is known at once: some 10 MB. */
const MAX_CLIENTS = 100_000

export function createQueueRoom({ aloneSince }: QueueRoomDeps): QueueRoom {
  const known = new Map<string, number>()
  /** What `aloneSince` said when this was learnt. */
  let knownSince: number | undefined
  let running = 0
  /** Grows with whatever a statement that is under way may not have seen. */
  let changes = 0
  /** Whose queue got longer while statements were under way. */
  const grown = new Set<string>()

  function take(clientId: string): boolean {
    const room = known.get(clientId) ?? 0
    if (room > 0) known.set(clientId, room - 1)
    return room > 0
  }

  function forget(): void {
    known.clear()
    changes++
  }

  return {
    begin(targets) {
      // Whom a group is for, only PostgreSQL knows.
      if (aloneSince() !== knownSince || targets.some(({ kind }) => kind !== 'client')) forget()
      knownSince = aloneSince()
      const isAlone = running === 0
      if (isAlone) grown.clear()
      running++
      const begun = ++changes
      return {
        sure: targets.map((target) => target.kind === 'client' && take(target.clientId)),
        end(room = []) {
          running--
          if (!isAlone || changes !== begun || knownSince === undefined || aloneSince() !== knownSince) return
          if (known.size > MAX_CLIENTS) known.clear()
          for (const [at, left] of room.entries()) {
            const target = targets[at]
            if (target?.kind !== 'client' || typeof left !== 'number' || grown.has(target.clientId)) continue
            known.set(target.clientId, left)
          }
        },
      }
    },
    requeued(clientId) {
      if (running > 0) grown.add(clientId)
      take(clientId)
    },
    forget,
  }
}
