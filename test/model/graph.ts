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
  const parents = createNumbers()
  const settled = createNumbers()
  const starts = createNumbers()
  const ends = createNumbers()
  parents.push(-1)
  settled.push(0)

  return {
    get size() {
      return parents.size
    },
    reach(key, from, isSettled) {
      const known = ids.get(key)
      if (known !== undefined) return { id: known, isNew: false }
      const id = parents.size
      ids.set(key, id)
      parents.push(from)
      settled.push(isSettled ? 1 : 0)
      return { id, isNew: true }
    },
    find: (key) => ids.get(key),
    end: (id) => settled.set(id, 1),
    alone(from, to) {
      starts.push(from)
      ends.push(to)
    },
    findStuck() {
      const { first, next } = listsBy(ends, settled.size)
      const toLook: number[] = []
      for (let id = 0; id < settled.size; id++) if (settled.at(id) === 1) toLook.push(id)
      for (let id = toLook.pop(); id !== undefined; id = toLook.pop()) {
        for (let step = first[id] as number; step >= 0; step = next[step] as number) {
          const from = starts.at(step)
          if (settled.at(from) === 1) continue
          settled.set(from, 1)
          toLook.push(from)
        }
      }
      for (let id = 0; id < settled.size; id++) if (settled.at(id) === 0) return id
      return undefined
    },
    way(id) {
      const way: number[] = []
      for (let each = id; each > 0; each = parents.at(each)) way.unshift(each)
      return way
    },
  }
}

/** Millions of numbers, four bytes each. */
function createNumbers() {
  let values = new Int32Array(1024)
  let size = 0
  return {
    get size() {
      return size
    },
    at: (index: number): number => values[index] as number,
    set(index: number, value: number): void {
      values[index] = value
    },
    push(value: number): void {
      if (size === values.length) {
        const larger = new Int32Array(2 * size)
        larger.set(values)
        values = larger
      }
      values[size++] = value
    },
  }
}

/** The steps by the world that they lead to, as linked lists: the first of each, and of each step the next one. */
function listsBy(ends: ReturnType<typeof createNumbers>, size: number): { first: Int32Array; next: Int32Array } {
  const first = new Int32Array(size).fill(-1)
  const next = new Int32Array(ends.size)
  for (let step = 0; step < next.length; step++) {
    next[step] = first[ends.at(step)] as number
    first[ends.at(step)] = step
  }
  return { first, next }
}
