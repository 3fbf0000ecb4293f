import { createBatcher } from '../batcher.ts'
import type { BatchMeter } from '../metrics/metrics.ts'

/** Keeps when tokens, or sessions, were last used: seldom, in batches, and never in the way of what they are used for. */
export interface LastUse {
  note(id: string): void
  stop(): Promise<void>
}

export interface LastUseDeps {
  /** Notes that these were used now, unless that was noted less than so many seconds ago. */
  store(ids: string[], exactSeconds: number): Promise<void>
  exactSeconds: number
  meter: BatchMeter
}

export function createLastUse({ store, exactSeconds, meter }: LastUseDeps): LastUse {
  /** When each one's use was last noted, on the clock of performance.now(). */
  const noted = new Map<string, number>()
  const writes = createBatcher<string, void>({
    run: async (ids) => {
      // Another node may have noted it meanwhile; half of the time, so that ours is not taken for the other's.
      await store(ids, exactSeconds / 2)
      return ids.map(() => undefined)
    },
    max: 500,
    whenDown: 'reject',
    meter,
  })
  return {
    note(id) {
      const now = performance.now()
      const before = noted.get(id)
      if (before !== undefined && now - before < exactSeconds * 1000) return
      noted.delete(id)
      noted.set(id, now)
      // The oldest come first; what is noted again after that long costs nothing to forget.
      for (const [old, at] of noted) {
        if (now - at < exactSeconds * 1000) break
        noted.delete(old)
      }
      // Not kept: the next use tries again.
      writes.add(id).catch(() => noted.delete(id))
    },
    stop: () => writes.stop(),
  }
}
