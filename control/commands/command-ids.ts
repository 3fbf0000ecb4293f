import { randomFillSync, randomInt } from 'node:crypto'
import { v7 as uuid } from 'uuid'
import type { DatabaseClock } from '../database-clock.ts'

/** uuid's sequence has 32 bits: half of them are left to count up in. */
const FIRST_SEQUENCES = 2 ** 31

/** Bytes of an id, and of how many ids random ones are drawn at once: that is what an id would cost. */
const ID_BYTES = 16
const DRAWN = 256

/**
 * Makes the ids of commands. They ascend with their creation, and by them the older one goes first, on the server and on the
 * device; so their time is PostgreSQL's.
 */
export function createCommandIds(clock: DatabaseClock): () => string {
  let msecs = 0
  let seq = 0
  const random = new Uint8Array(DRAWN * ID_BYTES)
  let used = random.length
  return () => {
    const now = clock.now()
    if (now > msecs) {
      msecs = now
      seq = randomInt(FIRST_SEQUENCES)
    } else seq++
    if (used === random.length) {
      randomFillSync(random)
      used = 0
    }
    used += ID_BYTES
    return uuid({ msecs, seq, random: random.subarray(used - ID_BYTES, used) })
  }
}
