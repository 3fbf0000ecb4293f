export interface Backoff {
  /** Upper bound of the first wait, in ms; doubles with each further failure. */
  minMs: number
  /** Upper bound of any wait, in ms. */
  maxMs: number
}

/** Full jitter: anything between nothing and the bound, so that a fleet does not come back all at once. In ms. */
export function reconnectDelay({ minMs, maxMs }: Backoff, failures: number, random: number = Math.random()): number {
  return random * Math.min(maxMs, minMs * 2 ** Math.min(failures, 30))
}
