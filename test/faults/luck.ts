import { createLuck as createChance } from '../../cli/simulate/behaviour.ts'

/** Chance that can be repeated: the same for the same seed. */
export interface Luck {
  /** In [0, 1). */
  next(): number
  between(min: number, max: number): number
  pick<T>(items: readonly T[]): T
  chance(share: number): boolean
  shuffled<T>(items: readonly T[]): T[]
}

export function createLuck(seed: number): Luck {
  const next = createChance(seed, 0)
  return {
    next,
    between: (min, max) => Math.floor(min + next() * (max - min + 1)),
    pick: (items) => items[Math.floor(next() * items.length)] as (typeof items)[number],
    chance: (share) => next() < share,
    shuffled: (items) =>
      items
        .map((item) => ({ item, place: next() }))
        .sort((a, b) => a.place - b.place)
        .map(({ item }) => item),
  }
}
