import { type AedesClient, readOn } from './aedes-internals.ts'

/** The login is not through, messages wait for their commit, or too many came at once. */
type Pause = 'login' | 'held' | 'rate'

/** Whether a connection is read from: not while there is a reason against it. The sender's own buffers hold what comes meanwhile. */
export interface Reading {
  pause(why: Pause): void
  /** This reason is gone, if it was there; it is read on if there is no other. */
  resume(why: Pause): void
  /** Reads on if nothing speaks against it. */
  goOn(): void
  readonly paused: boolean
}

export function createReading(client: AedesClient): Reading {
  const reasons = new Set<Pause>()
  const goOn = (): void => {
    if (reasons.size === 0) readOn(client)
  }
  return {
    pause(why) {
      reasons.add(why)
      client.pause()
    },
    resume(why) {
      if (reasons.delete(why)) goOn()
    },
    goOn,
    get paused() {
      return reasons.size > 0
    },
  }
}
