export interface Backoff {
  /** Upper bound of a wait while one was not yet away for as long, in ms. */
  minMs: number
  /** Upper bound of any wait, in ms. */
  maxMs: number
}

/**
 * How long to wait before the next attempt, in ms, having been away for `awayMs`. The bound is the time away: who counted failures
 * instead would, after some refusals in the second in which a server restarts, stay away for half a minute. Full jitter, anything
 * between nothing and the bound, so that a fleet does not come back all at once.
 */
export function reconnectDelay({ minMs, maxMs }: Backoff, awayMs: number, random: number = Math.random()): number {
  return random * Math.min(Math.max(awayMs, minMs), maxMs)
}
