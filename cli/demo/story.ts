import { setTimeout as wait } from 'node:timers/promises'

const LIMIT_SECONDS = 20
const POLL_MS = 25

/** A line of the demo with the time since its start. */
export type Say = (line: string) => void

export function startStory(): Say {
  const start = performance.now()
  return (line) => console.log(`${((performance.now() - start) / 1000).toFixed(3).padStart(7)} s  ${line}`)
}

/** Asks until `probe` answers something truthy. Throws `otherwise` after 20 s. */
export async function until<T>(probe: () => T | Promise<T>, otherwise: string): Promise<NonNullable<T>> {
  const deadline = performance.now() + LIMIT_SECONDS * 1000
  for (;;) {
    const value = await probe()
    if (value) return value
    if (performance.now() > deadline) throw new Error(`${otherwise} within ${LIMIT_SECONDS} s`)
    await wait(POLL_MS)
  }
}
