import type { Logger } from 'pino'
import { createTokenBuckets } from './gate/token-bucket.ts'

/** Logs what anybody outside can cause; `about` names who did: a client or an address. */
export type LimitedLog = (
  level: 'info' | 'warn',
  about: string,
  fields: Record<string, unknown>,
  message: string,
) => void

const MAX_COUNTED = 10_000

/** At most so many lines a minute with the same message about the same one; the next line says how many were left out. */
export function createLimitedLog(log: Logger, linesPerMinute: number): LimitedLog {
  const buckets = createTokenBuckets({ burst: linesPerMinute, perSecond: linesPerMinute / 60 })
  const leftOut = new Map<string, number>()
  return (level, about, fields, message) => {
    const key = `${message}: ${about}`
    const before = leftOut.get(key) ?? 0
    if (buckets.take(key)) {
      leftOut.delete(key)
      log[level](before > 0 ? { ...fields, leftOut: before } : fields, message)
    } else {
      if (leftOut.size >= MAX_COUNTED) leftOut.clear()
      leftOut.set(key, before + 1)
    }
  }
}
