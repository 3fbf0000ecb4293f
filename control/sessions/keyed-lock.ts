/** One holder per key at a time, first come first served. */
export interface KeyedLock {
  /** Resolves to the function that releases it; releasing twice does nothing. */
  acquire(key: string): Promise<() => void>
}

export function createKeyedLock(): KeyedLock {
  const tails = new Map<string, Promise<void>>()
  return {
    async acquire(key) {
      const previous = tails.get(key)
      let release = (): void => undefined
      const held = new Promise<void>((resolve) => {
        release = resolve
      })
      const tail = (previous ?? Promise.resolve()).then(() => held)
      tails.set(key, tail)
      void tail.then(() => {
        if (tails.get(key) === tail) tails.delete(key)
      })
      await previous
      return release
    },
  }
}
