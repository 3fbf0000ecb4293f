/** The worlds that were reached, each known by its key, and by which way. */
export interface Graph {
  readonly size: number
  /** The number of the world with this key, which was reached from `from`; `isNew` if nobody had been there. */
  reach(key: string, from: number, isSettled: boolean): { id: number; isNew: boolean }
  find(key: string): number | undefined
  /** What follows from here is not looked at. */
  end(id: number): void
  /** A step that the server or the clock takes by itself leads from one to the other. */
  alone(from: number, to: number): void
  /** A world from which the server and the clock alone never lead to a settled one. */
  findStuck(): number | undefined
  /** The numbers along the shortest way to it, without the first. */
  way(id: number): number[]
}

export function createGraph(firstKey: string): Graph {
  const ids = new Map([[firstKey, 0]])
  const parents = [-1]
  const settled = [false]
  /** Pairs. */
  const steps: number[] = []

  return {
    get size() {
      return parents.length
    },
    reach(key, from, isSettled) {
      const known = ids.get(key)
      if (known !== undefined) return { id: known, isNew: false }
      const id = parents.length
      ids.set(key, id)
      parents.push(from)
      settled.push(isSettled)
      return { id, isNew: true }
    },
    find: (key) => ids.get(key),
    end(id) {
      settled[id] = true
    },
    alone(from, to) {
      steps.push(from, to)
    },
    findStuck() {
      const [firstStep, nextStep] = stepsByEnd(steps, settled.length)
      const ends = Uint8Array.from(settled, Number)
      const toLook = settled.flatMap((isSettled, id) => (isSettled ? [id] : []))
      for (let id = toLook.pop(); id !== undefined; id = toLook.pop()) {
        for (let step = firstStep[id] as number; step >= 0; step = nextStep[step] as number) {
          const from = steps[2 * step] as number
          if (ends[from]) continue
          ends[from] = 1
          toLook.push(from)
        }
      }
      const stuck = ends.indexOf(0)
      return stuck < 0 ? undefined : stuck
    },
    way(id) {
      const way: number[] = []
      for (let each = id; each > 0; each = parents[each] as number) way.unshift(each)
      return way
    },
  }
}

/** Linked lists in arrays: the first step that leads to a world, and for each step the next one that leads there too. */
function stepsByEnd(steps: number[], size: number): [Int32Array, Int32Array] {
  const first = new Int32Array(size).fill(-1)
  const next = new Int32Array(steps.length / 2)
  for (let step = 0; step < next.length; step++) {
    const to = steps[2 * step + 1] as number
    next[step] = first[to] as number
    first[to] = step
  }
  return [first, next]
}
