import { createLuck as createChance } from '../../cli/simulate/behaviour.ts'

/** Chance that can be repeated: the same for the same seed. */
export interface Luck {
  /** In [0, 1). */
  next(): number
  between(min: number, max: number): number
  pick<T>(items: readonly T[]): T
  chance(share: number): boolean
  /** Of those that are asked about under one name, every nth, and not the first: for draws that are so few that chance could deal them all alike. */
  everyNth(name: string, n: number): boolean
  shuffled<T>(items: readonly T[]): T[]
}

export function createLuck(seed: number): Luck {
  const next = createChance(seed, 0)
  const asked = new Map<string, number>()
  return {
    next,
    between: (min, max) => Math.floor(min + next() * (max - min + 1)),
    pick: (items) => items[Math.floor(next() * items.length)] as (typeof items)[number],
    chance: (share) => next() < share,
    everyNth(name, n) {
      const count = (asked.get(name) ?? 0) + 1
      asked.set(name, count)
      return count % n === n - 1
    },
    shuffled: (items) =>
      items
        .map((item) => ({ item, place: next() }))
        .sort((a, b) => a.place - b.place)
        .map(({ item }) => item),
  }
}
