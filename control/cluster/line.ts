import { type RateLimiterAbstract, RateLimiterMemory } from 'rate-limiter-flexible'

/** What counts for all nodes together. */
export type SharedCounter = Pick<RateLimiterAbstract, 'penalty' | 'reward'>

/** The library decides only what a window is: what is too many, its callers do, and differs from one to the other. */
export const NO_LIMIT = Number.MAX_SAFE_INTEGER

/** Counts for this node alone. */
export const countAlone = (seconds: number): RateLimiterMemory =>
  new RateLimiterMemory({ points: NO_LIMIT, duration: seconds })

/**
 * The way to the other nodes: what goes over it may be lost, late or repeated, and nobody waits for it. Everything that has to
 * be is in PostgreSQL.
 */
export interface Line {
  /** Listens from here on. `cluster` names who belongs together. Resolves when it is up, or when that takes too long. */
  open(cluster: string, node: string, listeners: LineListeners): Promise<void>
  /** To all other nodes. Never waits and never throws. */
  send(message: string): void
  /** Whether what is sent arrives, as far as is known. */
  up(): boolean
  /** Counts for all nodes while it is up, and for this one alone while not. */
  counter(seconds: number): SharedCounter
  /** Since the start. */
  counts(): { sent: number; failed: number }
  close(): Promise<void>
}

export interface LineListeners {
  message(text: string): void
  /** It is up: until now, messages may have been lost. */
  up(): void
  down(why: string): void
}
