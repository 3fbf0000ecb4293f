/**
 * What PostgreSQL's clock says, without asking: times that are stored or compared with stored ones are PostgreSQL's, since a server's
 * own wall clock may be off, and be set right while work waits.
 */
export interface DatabaseClock {
  /** In ms; behind by what the last answer took on its way, and never going back unless PostgreSQL's clock was set back. */
  now(): number
  /** Whether PostgreSQL was heard just now, so that even a clock that was set is told rightly. */
  isFresh(): boolean
  /** An answer came: PostgreSQL's clock, in ms, as it was while the statement ran. */
  observe(databaseNow: number): void
}

const FRESH_MS = 1000
/** What lies further back than this is no late answer: the clock was set. */
const SET_BACK_MS = 1000

export function createDatabaseClock(): DatabaseClock {
  let offset = 0
  let observedAt = Number.NEGATIVE_INFINITY
  let last = 0
  return {
    now() {
      const now = Math.floor(performance.now() + offset)
      if (now > last || now < last - SET_BACK_MS) last = now
      return last
    },
    isFresh: () => performance.now() - observedAt < FRESH_MS,
    observe(databaseNow) {
      observedAt = performance.now()
      offset = databaseNow - observedAt
    },
  }
}
