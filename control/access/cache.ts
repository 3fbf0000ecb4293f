/** Answers of `load` by key, for a short time: what is asked for again meanwhile, known or not, costs no query. */
export interface Cache<T> {
  get(key: string): Promise<T | undefined>
  forget(key: string): void
  forgetAll(): void
}

const MAX_ENTRIES = 50_000

export function createCache<T>(seconds: number, load: (key: string) => Promise<T | undefined>): Cache<T> {
  const entries = new Map<string, { value: Promise<T | undefined>; until: number }>()
  return {
    get(key) {
      const known = entries.get(key)
      if (known && known.until > performance.now()) return known.value
      // Insertion order is age: the oldest goes when an attacker fills the cache with names.
      if (entries.size >= MAX_ENTRIES) entries.delete(entries.keys().next().value as string)
      const value = load(key)
      const entry = { value, until: performance.now() + seconds * 1000 }
      entries.delete(key)
      entries.set(key, entry)
      value.catch(() => {
        if (entries.get(key) === entry) entries.delete(key)
      })
      return value
    },
    forget: (key) => void entries.delete(key),
    forgetAll: () => entries.clear(),
  }
}
