/** So many at once, so many per second after that. */
export interface Rate {
  burst: number
  perSecond: number
}

/** What one sender may do: a bucket of tokens that fills up again. */
export class TokenBucket {
  readonly #rate: Rate
  #tokens: number
  #at = performance.now()

  constructor(rate: Rate) {
    this.#rate = rate
    this.#tokens = rate.burst
  }

  /** How many there are now. */
  available(): number {
    const { burst, perSecond } = this.#rate
    const now = performance.now()
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#at) / 1000) * perSecond)
    this.#at = now
    return Math.floor(this.#tokens)
  }

  spend(count: number): void {
    this.#tokens -= count
  }
}

/** A bucket per name, for names that anybody may choose: those that were not asked for lately go when there are too many. */
export interface TokenBuckets {
  /** Whether one more is within the rate of this name; if not, nothing is taken. */
  take(name: string): boolean
}

const MAX_NAMES = 10_000

export function createTokenBuckets(rate: Rate): TokenBuckets {
  let recent = new Map<string, TokenBucket>()
  let before = new Map<string, TokenBucket>()
  return {
    take(name) {
      const bucket = recent.get(name) ?? before.get(name) ?? new TokenBucket(rate)
      if (recent.size >= MAX_NAMES) {
        before = recent
        recent = new Map()
      }
      recent.set(name, bucket)
      if (bucket.available() < 1) return false
      bucket.spend(1)
      return true
    },
  }
}
