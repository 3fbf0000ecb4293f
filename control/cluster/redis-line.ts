import { RateLimiterRedis } from 'rate-limiter-flexible'
import { createRedisChannel } from '../../db/redis.ts'
import { countAlone, type Line, NO_LIMIT } from './line.ts'

/** The nodes' line through Redis: one channel for hints, and counters that count for all of them. */
export function createRedisLine({ url, timeoutSeconds }: { url: string; timeoutSeconds: number }): Line {
  const channel = createRedisChannel(url, timeoutSeconds)
  let prefix = ''
  return {
    open(cluster, node, listeners) {
      prefix = `signalbox:${cluster}`
      return channel.open(prefix, node, listeners)
    },
    send: channel.publish,
    up: channel.up,
    counter(seconds) {
      const alone = countAlone(seconds)
      let shared: RateLimiterRedis | undefined
      const choose = () => {
        if (!channel.up()) return alone
        shared ??= new RateLimiterRedis({
          storeClient: channel.client,
          keyPrefix: `${prefix}:count`,
          points: NO_LIMIT,
          duration: seconds,
          rejectIfRedisNotReady: true,
          insuranceLimiter: alone,
        })
        return shared
      }
      return {
        penalty: (key, points) => choose().penalty(key, points),
        reward: (key, points) => choose().reward(key, points),
      }
    },
    counts: channel.counts,
    close: channel.close,
  }
}
