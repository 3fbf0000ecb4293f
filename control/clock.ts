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
  pass(): Promise<void>
}): Clock {
  const { what, log } = options
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> = Promise.resolve()
  let stopped = false

  async function pass(): Promise<void> {
    try {
      await options.pass()
    } catch (error) {
      if (isDatabaseDown(error)) log.warn({ reason: (error as Error).message }, `${what} waits for the database`)
      else log.error({ err: error }, `${what} failed`)
    }
    if (!stopped) schedule()
  }

  function schedule(): void {
    timer = setTimeout(() => {
      running = pass()
    }, options.intervalSeconds * 1000)
    timer.unref()
  }

  return {
    start: schedule,
    async stop() {
      stopped = true
      clearTimeout(timer)
      await running
    },
  }
}
