/** Work of many, in the order in which it comes, and not all of it at one go. */
export interface Turns {
  /** Now, if this turn of the event loop has time for it and nobody waits; otherwise behind those who do. Answers which. */
  run(job: () => void): boolean
  /** Once everything is done that was given until now; never before this call returns. */
  after(job: () => void): void
}

/** Of one turn of the event loop. What a job leaves to the loop, such as Aedes its writes, comes on top, and is ten times as much. */
const TURN_MS = 2

/**
 * Ten thousand devices that are written to, or answer, at one moment would keep the event loop to themselves for as long as that
 * takes. Given in turns, it takes no longer, and everybody else is served in between.
 */
export function createTurns(): Turns {
  let waiting: (() => void)[] = []
  let begun = false
  let since = 0

  function next(): void {
    since = performance.now()
    let done = 0
    while (done < waiting.length && performance.now() - since < TURN_MS) (waiting[done++] as () => void)()
    waiting = waiting.slice(done)
    begun = waiting.length > 0
    if (begun) setImmediate(next)
  }

  /** A turn begins with the first job of it, and ends when the event loop comes round. */
  function begin(): void {
    if (begun) return
    begun = true
    since = performance.now()
    setImmediate(next)
  }

  return {
    run(job) {
      begin()
      const isNow = waiting.length === 0 && performance.now() - since < TURN_MS
      if (isNow) job()
      else waiting.push(job)
      return isNow
    },
    after(job) {
      // Not past what was given before it, its own kind included.
      if (begun) waiting.push(job)
      else setImmediate(job)
    },
  }
}
