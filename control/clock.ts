import type { Logger } from 'pino'
import { isDatabaseDown } from '../db/connect.ts'

/** Repeats a pass by the clock. Passes never overlap, and one that fails does not end the repetition. */
export interface Clock {
  start(): void
  /** Waits for the pass that is under way. */
  stop(): Promise<void>
}

export function createClock(options: {
  /** For the log: `sweep`. */
  what: string
  log: Logger
  /** From the end of a pass to the beginning of the next. */
  intervalSeconds: number
  /** `rest` says how long to rest after this pass instead, ms. */
  pass(rest: (ms: number) => void): Promise<void>
}): Clock {
  const { what, log } = options
  const intervalMs = options.intervalSeconds * 1000
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> = Promise.resolve()
  let stopped = false

  async function pass(): Promise<void> {
    let restMs = intervalMs
    try {
      await options.pass((ms) => {
        restMs = ms
      })
    } catch (error) {
      if (isDatabaseDown(error)) log.warn({ reason: (error as Error).message }, `${what} waits for the database`)
      else log.error({ err: error }, `${what} failed`)
    }
    if (!stopped) schedule(restMs)
  }

  function schedule(restMs: number): void {
    timer = setTimeout(() => {
      running = pass()
    }, restMs)
    timer.unref()
  }

  return {
    start: () => schedule(intervalMs),
    async stop() {
      stopped = true
      clearTimeout(timer)
      await running
    },
  }
}
