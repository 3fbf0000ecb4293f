import { isBadValue, isDatabaseDown, isRaceLost } from '../db/connect.ts'
import type { BatchMeter } from './metrics/metrics.ts'
import { unavailable } from './unavailable.ts'

/** While PostgreSQL is down: wait until it is back, or be told UNAVAILABLE. */
export type WhenDown = 'hold' | 'reject'

export interface BatcherOptions<Item, Result> {
  /** One round of statements for all items; answers in the items' order. */
  run(items: Item[]): Promise<Result[]>
  /** Items in one round at most. */
  max: number
  /** For items that do not say it themselves. */
  whenDown: WhenDown
  meter: BatchMeter
  onDown?(error: unknown): void
  /** The first round that was written after such failures. */
  onUp?(): void
}

export interface Batcher<Item, Result> {
  add(item: Item, whenDown?: WhenDown): Promise<Result>
  /** Whether what is added now can hardly be written: items are held, or were rejected in the last seconds. */
  failing(): boolean
  /** Waits for everything added so far; items that are held for a database that is down are rejected. */
  stop(): Promise<void>
}

interface Entry<Item, Result> {
  item: Item
  whenDown: WhenDown
  resolve(result: Result): void
  reject(error: unknown): void
}

const RETRY_MIN_MS = 100
const RETRY_MAX_MS = 1000
/** A rejection is news for this long, if nothing was written since. */
const RECENT_MS = 5000

/**
 * Group commit: what arrives while a round is in flight goes into the next one. There is no timer, so nothing is added to an
 * idle call, and a busy one shares its round trip and its fsync with all others. Every caller is answered after its own commit.
 */
export function createBatcher<Item, Result>(options: BatcherOptions<Item, Result>): Batcher<Item, Result> {
  const { meter } = options
  let queue: Entry<Item, Result>[] = []
  let running: Promise<void> | undefined
  let stopping = false
  /** Between two tries of a round that is held. */
  let waiting = false
  /** performance.now() of the last failure for want of a database, unless something was written since. */
  let failedAt: number | undefined

  async function drain(): Promise<void> {
    while (queue.length > 0) {
      const round = queue.slice(0, options.max)
      queue = queue.slice(options.max)
      await runRound(round)
      // With the others that this turn of the event loop has heard of: those who wait are many, and a round costs what it costs.
      if (queue.length > 0) await new Promise(setImmediate)
    }
    running = undefined
  }

  async function runRound(given: Entry<Item, Result>[]): Promise<void> {
    let round = given
    for (let wait = RETRY_MIN_MS; ; wait = Math.min(wait * 2, RETRY_MAX_MS)) {
      try {
        const start = performance.now()
        const results = await options.run(round.map((entry) => entry.item))
        meter.round(round.length, (performance.now() - start) / 1000)
        for (const [index, entry] of round.entries()) entry.resolve(results[index] as Result)
        if (failedAt !== undefined) options.onUp?.()
        failedAt = undefined
        return
      } catch (error) {
        if (isDatabaseDown(error)) {
          failedAt = performance.now()
          options.onDown?.(error)
          // Whoever does not wait for the database does not wait in the queue for it either.
          queue = rejectImpatient(queue)
          round = rejectImpatient(round)
          if (round.length === 0) return
          meter.retry('database_down')
          waiting = true
          await new Promise((resolve) => setTimeout(resolve, wait))
          waiting = false
          continue
        }
        if (isRaceLost(error)) {
          meter.retry('race_lost')
          continue
        }
        if (!isBadValue(error) || round.length === 1) return rejectAll(round, error)
        meter.retry('bad_value')
        // One bad row made the whole statement fail: halve until it fails alone.
        const middle = Math.ceil(round.length / 2)
        await runRound(round.slice(0, middle))
        return runRound(round.slice(middle))
      }
    }
  }

  /** Answers the entries that go on waiting. */
  function rejectImpatient(entries: Entry<Item, Result>[]): Entry<Item, Result>[] {
    const isHeld = (entry: Entry<Item, Result>): boolean => entry.whenDown === 'hold' && !stopping
    rejectAll(
      entries.filter((entry) => !isHeld(entry)),
      unavailable(),
    )
    return entries.filter(isHeld)
  }

  return {
    add: (item, whenDown = options.whenDown) =>
      new Promise((resolve, reject) => {
        if (waiting && whenDown === 'reject') return reject(unavailable())
        queue.push({ item, whenDown, resolve, reject })
        // In a microtask, so that everything added in this turn shares the first round.
        running ??= Promise.resolve().then(drain)
      }),
    failing: () => failedAt !== undefined && (running !== undefined || performance.now() - failedAt < RECENT_MS),
    async stop() {
      stopping = true
      await running
    },
  }
}

function rejectAll(round: { reject(error: unknown): void }[], error: unknown): void {
  for (const entry of round) entry.reject(error)
}
