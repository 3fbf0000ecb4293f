/** Where a list goes on: after the item with this sort key. */
export interface Paging {
  limit: number
  after: string | undefined
}

export interface Page<T> {
  items: T[]
  /** The sort key of the last item when there is more, else null. */
  next: string | null
}
