/** A clock that goes on in steps, and only as fast as they come: a pause of the whole process is nobody's delay. */
export interface Ticks {
  /** Milliseconds of steps so far. */
  now(): number
  /** How long one step is. */
  readonly stepMs: number
  stop(): void
}

const MIN_STEP_MS = 20
const MAX_STEP_MS = 1000

/** Ten steps in the shortest time that is measured; `onStep` runs at each. */
export function createTicks(shortestMs: number, onStep: () => void): Ticks {
  const stepMs = Math.min(MAX_STEP_MS, Math.max(MIN_STEP_MS, shortestMs / 10))
  let now = 0
  const timer = setInterval(() => {
    now += stepMs
    onStep()
  }, stepMs)
  timer.unref()
  return { now: () => now, stepMs, stop: () => clearInterval(timer) }
}
