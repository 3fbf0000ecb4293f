import type { Db } from '../../db/connect.ts'
import { storeLastUse } from '../../db/tokens.ts'
import { createBatcher } from '../batcher.ts'
import type { Metrics } from '../metrics/metrics.ts'

/** Keeps when tokens were last used: seldom, in batches, and never in the way of what they are used for. */
export interface TokenUse {
  note(tokenId: string): void
  stop(): Promise<void>
}

export function createTokenUse(db: Db, metrics: Metrics, exactSeconds: number): TokenUse {
  /** When each token's use was last noted, on the clock of performance.now(). */
  const noted = new Map<string, number>()
  const writes = createBatcher<string, void>({
    run: async (ids) => {
      // Another node may have noted it meanwhile; half of the time, so that ours is not taken for the other's.
      await storeLastUse(db, ids, exactSeconds / 2)
      return ids.map(() => undefined)
    },
    max: 500,
    whenDown: 'reject',
    meter: metrics.batcher('token_use'),
  })
  return {
    note(tokenId) {
      const now = performance.now()
      const before = noted.get(tokenId)
      if (before !== undefined && now - before < exactSeconds * 1000) return
      noted.set(tokenId, now)
      // Not kept: the next use tries again.
      writes.add(tokenId).catch(() => noted.delete(tokenId))
    },
    stop: () => writes.stop(),
  }
}
