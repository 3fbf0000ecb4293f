import { RateLimiterMemory } from 'rate-limiter-flexible'
import { AppError, LimitError, type LimitState } from '../../schemas/errors.ts'
import { MINUTE_SECONDS } from './minute-limits.ts'
import { hashSecret } from './secrets.ts'
import { senderOf } from './sender.ts'

/**
 * How often a login failed, by address and by name. Nobody is locked out: whoever has the right secret is not asked about it,
 * whatever others tried from his address or under his name. Only how a failure is answered depends on it.
 */
export interface LoginThrottle {
  /** Counts a failure; answers how the limit stands once there were too many in this minute. */
  failed(address: string, name?: string): Promise<LimitState | undefined>
}

export function createLoginThrottle(failuresPerMinute: number): LoginThrottle {
  const counter = new RateLimiterMemory({ points: failuresPerMinute, duration: MINUTE_SECONDS })
  return {
    async failed(address, name) {
      const keys = [`address ${shared(senderOf(address))}`, ...(name === undefined ? [] : [`name ${shared(name)}`])]
      const counts = await Promise.all(keys.map((key) => counter.penalty(key)))
      const over = counts.filter(({ consumedPoints }) => consumedPoints > failuresPerMinute)
      if (over.length === 0) return undefined
      const resetSeconds = Math.ceil(Math.max(...over.map(({ msBeforeNext }) => msBeforeNext)) / 1000)
      return { name: 'login', quota: failuresPerMinute, windowSeconds: MINUTE_SECONDS, remaining: 0, resetSeconds }
    },
  }
}

/** Counts a failure over HTTP; answers what it is told: UNAUTHORIZED with this message, or RATE_LIMIT. */
export async function refusedLogin(throttle: LoginThrottle, address: string, message: string): Promise<AppError> {
  const limit = await throttle.failed(address)
  if (!limit) return new AppError('UNAUTHORIZED', message)
  return new LimitError(
    'RATE_LIMIT',
    'Too many wrong keys, tokens and codes from your address.',
    [limit],
    limit.resetSeconds,
  )
}

/** Anybody may come with any number of them: they share 16,384 counters, so that memory is bounded and no number evades the limit. */
const shared = (text: string): number => hashSecret(text).readUInt16BE() >> 2
