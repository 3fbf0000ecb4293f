import { setTimeout as sleep } from 'node:timers/promises'

/** A load that goes on until it is told to end, and counts what it has done. Runs as a part. */
export interface RateLoad {
  start(): void
  /** What was done since it was last asked. Throws if something failed. */
  take(): Taken
  /** Begins nothing more; resolves with how many were begun, when all of them are done. */
  finish(): Promise<number>
}

export interface Taken {
  count: number
  seconds: number
  /** From the beginning of each to its end, in ms. */
  latencies: Float64Array
}

export interface RateLoadOptions {
  /** So many begin one after the other. */
  callers: number
  /** Together they begin so many a second, however long each takes; otherwise as many as they can. */
  perSecond?: number
  /** At most so many are begun and not done. */
  outstanding: number
  /** Begins the nth; `done(n)` is called when it is done, which may be before this resolves. */
  begin(n: number, done: (n: number) => void): Promise<void>
}

const DRAIN_LIMIT_MS = 60_000

/** `fail`: what the load is made of has failed, apart from what it began. */
export function createRateLoad(options: RateLoadOptions): RateLoad & { fail(error: Error): void } {
  const { callers, perSecond, outstanding, begin } = options
  const begun = new Map<number, number>()
  let next = 0
  let latencies: number[] = []
  let startedAt = 0
  let slot = 0
  let takenAt = performance.now()
  let ending = false
  let running: Promise<unknown> | undefined
  let failure: Error | undefined
  /** Callers that wait for room, and who waits for the end. */
  const waiting: (() => void)[] = []

  const done = (n: number): void => {
    const begunAt = begun.get(n)
    if (begunAt === undefined) throw new Error(`${n} was done twice, or never begun`)
    begun.delete(n)
    latencies.push(performance.now() - begunAt)
    waiting.shift()?.()
  }
  const fail = (error: Error): void => {
    failure ??= error
    for (const wake of waiting.splice(0)) wake()
  }
  const room = (most: number): Promise<void> | undefined =>
    begun.size < most ? undefined : new Promise((resolve) => waiting.push(resolve))

  /** Resolves when the next one is to begin. */
  const due = (rate: number): Promise<void> =>
    sleep(Math.max(0, startedAt + (slot++ / rate) * 1000 - performance.now()))

  const caller = async (): Promise<void> => {
    while (!ending && !failure) {
      await room(outstanding)
      if (perSecond !== undefined) await due(perSecond)
      const n = next++
      begun.set(n, performance.now())
      await begin(n, done)
    }
  }
  return {
    fail,
    start() {
      takenAt = startedAt = performance.now()
      running = Promise.all(Array.from({ length: callers }, caller)).catch(fail)
    },
    take() {
      if (failure) throw failure
      const now = performance.now()
      const taken = {
        count: latencies.length,
        seconds: (now - takenAt) / 1000,
        latencies: Float64Array.from(latencies),
      }
      latencies = []
      takenAt = now
      return taken
    },
    async finish() {
      ending = true
      await running
      if (failure) throw failure
      const late = setTimeout(
        () => fail(new Error(`${begun.size} were not done within ${DRAIN_LIMIT_MS} ms`)),
        DRAIN_LIMIT_MS,
      )
      while (begun.size > 0 && !failure) await room(1)
      clearTimeout(late)
      if (failure) throw failure
      return next
    },
  }
}
