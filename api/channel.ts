/** Messages on their way to one reader. */
export interface Channel<T> extends AsyncIterable<T> {
  /** Answers false once it is closed. */
  push(message: T): boolean
  close(): void
  closed: Promise<void>
}

export function createChannel<T>(): Channel<T> {
  const queue: T[] = []
  const { promise: closed, resolve: markClosed } = Promise.withResolvers<void>()
  let open = true
  let wake = (): void => undefined

  async function* read(): AsyncGenerator<T> {
    while (open || queue.length > 0) {
      if (queue.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      yield* queue.splice(0)
    }
  }

  return {
    closed,
    push(message) {
      if (!open) return false
      queue.push(message)
      wake()
      return true
    },
    close() {
      open = false
      markClosed()
      wake()
    },
    [Symbol.asyncIterator]: read,
  }
}
