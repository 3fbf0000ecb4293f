import { createTokenBuckets } from './token-bucket.ts'

/**
 * How often a login failed, by address and by name. Nobody is locked out: whoever has the right key gets in, whatever others
 * tried from his address or under his name. Only the answer to a login that failed once too often is delayed.
 */
export interface FailedLogins {
  /** Notes one; answers whether there were too many. */
  note(sender: string, name: string | undefined): boolean
}

export function createFailedLogins(perMinute: number): FailedLogins {
  const rate = { burst: perMinute, perSecond: perMinute / 60 }
  const bySender = createTokenBuckets(rate)
  const byName = createTokenBuckets(rate)
  return {
    note(sender, name) {
      const senderWithin = bySender.take(sender)
      const nameWithin = name === undefined || byName.take(name)
      return !senderWithin || !nameWithin
    },
  }
}
