import { isBadValue, isDatabaseDown, isRaceLost } from '../db/connect.ts'
import { AppError } from '../schemas/errors.ts'
import type { BatchMeter } from './metrics/metrics.ts'

export interface BatcherOptions<Item, Result> {
  /** One round of statements for all items; answers in the items' order. */
  run(items: Item[]): Promise<Result[]>
  /** Items in one round at most. */
  max: number
  /** While PostgreSQL is down: keep the items and try again until it is back, or reject them as UNAVAILABLE. */
  whenDown: 'hold' | 'reject'
  meter: BatchMeter
  onDown?(error: unknown): void
}

export interface Batcher<Item, Result> {
  add(item: Item): Promise<Result>
  /** Waits for everything added so far; items that are held for a database that is down are rejected. */
  stop(): Promise<void>
}

interface Entry<Item, Result> {
  item: Item
  resolve(result: Result): void
  reject(error: unknown): void
}

const RETRY_MIN_MS = 100
const RETRY_MAX_MS = 1000

/**
 * Group commit: what arrives while a round is in flight goes into the next one. There is no timer, so nothing is added to an
 * idle call, and a busy one shares its round trip and its fsync with all others. Every caller is answered after its own commit.
 */
export function createBatcher<Item, Result>(options: BatcherOptions<Item, Result>): Batcher<Item, Result> {
  const { meter } = options
  let queue: Entry<Item, Result>[] = []
  let running: Promise<void> | undefined
  let stopping = false

  async function drain(): Promise<void> {
    while (queue.length > 0) {
      const round = queue.slice(0, options.max)
      queue = queue.slice(options.max)
      await runRound(round)
    }
    running = undefined
  }

  async function runRound(round: Entry<Item, Result>[]): Promise<void> {
    for (let wait = RETRY_MIN_MS; ; wait = Math.min(wait * 2, RETRY_MAX_MS)) {
      try {
        const start = performance.now()
        const results = await options.run(round.map((entry) => entry.item))
        meter.round(round.length, (performance.now() - start) / 1000)
        for (const [index, entry] of round.entries()) entry.resolve(results[index] as Result)
        return
      } catch (error) {
        if (isDatabaseDown(error)) {
          options.onDown?.(error)
          if (options.whenDown === 'hold' && !stopping) {
            meter.retry('database_down')
            await new Promise((resolve) => setTimeout(resolve, wait))
            continue
          }
          return rejectAll(round, new AppError('UNAVAILABLE', 'The database does not answer; nothing is confirmed.'))
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

  return {
    add: (item) =>
      new Promise((resolve, reject) => {
        queue.push({ item, resolve, reject })
        // In a microtask, so that everything added in this turn shares the first round.
        running ??= Promise.resolve().then(drain)
      }),
    async stop() {
      stopping = true
      await running
    },
  }
}

function rejectAll(round: { reject(error: unknown): void }[], error: unknown): void {
  for (const entry of round) entry.reject(error)
}
