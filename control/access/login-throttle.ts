import { RateLimiterMemory } from 'rate-limiter-flexible'
import { LimitError } from '../../schemas/errors.ts'
import { MINUTE_SECONDS } from './minute-limits.ts'
import { hashSecret } from './secrets.ts'

/** Counts failed logins per address. Who has the right secret is not asked about it. */
export interface LoginThrottle {
  /** Counts a failure; what it is to be answered with once there were too many. */
  failed(address: string): Promise<LimitError | undefined>
}

export function createLoginThrottle(failuresPerMinute: number): LoginThrottle {
  const counter = new RateLimiterMemory({ points: failuresPerMinute, duration: MINUTE_SECONDS })
  return {
    async failed(address) {
      const { consumedPoints, msBeforeNext } = await counter.penalty(bucketOf(address))
      if (consumedPoints <= failuresPerMinute) return undefined
      const resetSeconds = Math.ceil(msBeforeNext / 1000)
      const limit = {
        name: 'login',
        quota: failuresPerMinute,
        windowSeconds: MINUTE_SECONDS,
        remaining: 0,
        resetSeconds,
      }
      return new LimitError('RATE_LIMIT', 'Too many wrong keys and tokens from your address.', [limit], resetSeconds)
    },
  }
}

/** Addresses share 16,384 counters, so that their number costs no memory: who shares one loses nothing with a right secret. */
const bucketOf = (address: string): number => hashSecret(address).readUInt16BE() >> 2
