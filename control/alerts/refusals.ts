import { Id } from '../../schemas/ids.ts'
import { presentable } from '../access/presentable.ts'

/** Refusals of one client since the last look. */
export interface Refusal {
  clientId: string
  /** `qos_0`: it is connected, and asked for its commands at QoS 0. */
  cause: 'login' | 'qos_0'
  /** The last one's. */
  reason: string
  count: number
  /** performance.now() of the last one. */
  heardAt: number
}

/**
 * Notes who is turned away at the doors, in bounded memory, until the next look for alerts. Nothing here waits or fails, so that
 * a flood of bad logins costs what a few look-ups in a map cost. What was noted is lost with the process: the client will be
 * refused again.
 */
export interface Refusals {
  /** A login under a name that may be no client's. */
  login(name: string | undefined, reason: string): void
  /** A client's own commands topic, asked for at QoS 0. */
  commandsTopic(clientId: string, reason: string): void
  /** What was noted since; it is forgotten here. */
  take(): Refusal[]
  /** It could not be stored: it counts for the next look. */
  putBack(refusals: Refusal[]): void
}

export interface RefusalsDeps {
  /** Remembers what the login itself has just asked. */
  isClient(name: string): Promise<boolean>
  /** Clients to remember at most. */
  max: number
}

const REASON_LENGTH = 300

export function createRefusals({ isClient, max }: RefusalsDeps): Refusals {
  let noted = new Map<string, Refusal>()

  function note(refusal: Refusal): void {
    const before = noted.get(refusal.clientId)
    if (before) noted.set(refusal.clientId, { ...refusal, count: before.count + refusal.count })
    else if (noted.size < max) noted.set(refusal.clientId, refusal)
  }

  return {
    login(name, reason) {
      if (name === undefined || !Id.safeParse(name).success) return
      const refusal = {
        clientId: name,
        cause: 'login' as const,
        reason: presentable(reason, REASON_LENGTH),
        count: 1,
        heardAt: performance.now(),
      }
      if (noted.has(name)) return note(refusal)
      // While the database is down nobody can say whose name it is.
      isClient(name).then(
        (known) => known && note(refusal),
        () => undefined,
      )
    },
    commandsTopic(clientId, reason) {
      note({
        clientId,
        cause: 'qos_0',
        reason: presentable(reason, REASON_LENGTH),
        count: 1,
        heardAt: performance.now(),
      })
    },
    take() {
      const taken = [...noted.values()]
      noted = new Map()
      return taken
    },
    putBack(refusals) {
      const newer = [...noted.values()]
      noted = new Map()
      for (const refusal of [...refusals, ...newer]) note(refusal)
    },
  }
}
