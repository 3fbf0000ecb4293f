import { randomInt } from 'node:crypto'
import { v7 as uuid } from 'uuid'

/**
 * Makes the ids of commands. They ascend with their creation, and by them the older one goes first, on the server and on the
 * device; so their time is PostgreSQL's. A server's own wall clock may be off, and be set right while work waits.
 */
export interface CommandIds {
  next(): string
  /** What PostgreSQL's clock said a moment ago, ms. */
  observe(databaseNow: number): void
}

/** uuid's sequence has 32 bits: half of them are left to count up in. */
const FIRST_SEQUENCES = 2 ** 31

export function createCommandIds(): CommandIds {
  let offset = 0
  let msecs = 0
  let seq = 0
  return {
    next() {
      const now = Math.floor(performance.now() + offset)
      if (now > msecs) {
        msecs = now
        seq = randomInt(FIRST_SEQUENCES)
      } else seq++
      return uuid({ msecs, seq })
    },
    observe(databaseNow) {
      offset = databaseNow - performance.now()
    },
  }
}
