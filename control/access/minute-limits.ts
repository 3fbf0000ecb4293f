import type { LimitState } from '../../schemas/errors.ts'
import { type Grant, scopeName } from '../../schemas/principals.ts'
import type { SharedCounter } from '../cluster/line.ts'

export const MINUTE_SECONDS = 60

/** One command's share of the minute limits of the grants that allow it. */
export interface MinuteShare {
  /** The limit that has least left, counting this command. */
  state: LimitState
  /** Over the limit: then nothing was taken, and so many commands were asked for in this minute, refused ones too. */
  refused: { asked: number } | null
  /** The command was not stored: it does not count. */
  giveBack(): Promise<void>
}

/**
 * Counts one command against each of these grants. The library counts (in memory, or in Redis for all nodes); what is too many
 * differs from grant to grant and is decided here.
 */
export async function takeMinuteShare(
  counter: SharedCounter,
  principalId: string,
  grants: Grant[],
): Promise<MinuteShare> {
  const shares = await Promise.all(
    grants.map(async (grant) => {
      const key = `${principalId} ${scopeName(grant)}`
      const { consumedPoints: asked, msBeforeNext } = await counter.penalty(key)
      return { key, quota: grant.commandsPerMinute, asked, msBeforeNext, until: performance.now() + msBeforeNext }
    }),
  )
  const tightest = shares.reduce((a, b) => (b.quota - b.asked < a.quota - a.asked ? b : a))
  const giveBack = async (): Promise<void> => {
    // In a minute that is over it counted for nothing; given back to the next one, it would allow one more there.
    await Promise.all(shares.filter(({ until }) => performance.now() < until).map(({ key }) => counter.reward(key)))
  }
  const state = {
    name: 'minute',
    quota: tightest.quota,
    windowSeconds: MINUTE_SECONDS,
    remaining: Math.max(0, tightest.quota - tightest.asked),
    resetSeconds: Math.ceil(tightest.msBeforeNext / 1000),
  }
  if (tightest.asked <= tightest.quota) return { state, refused: null, giveBack }
  await giveBack()
  const { consumedPoints } = await counter.penalty(`refused ${tightest.key}`)
  return { state, refused: { asked: tightest.quota + consumedPoints }, giveBack: async () => undefined }
}
