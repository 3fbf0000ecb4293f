import { Queue, Worker } from 'bullmq'
import { createRateLoad, type RateLoad } from '../load/rate-load.ts'
import type { Label } from '../load/work.ts'

export interface BullmqOrders {
  /** Of the Redis server. */
  socketPath: string
  callers: number
  outstanding: number
  /** Jobs of the worker at once. */
  concurrency: number
}

const QUEUE = 'bench'

/** BullMQ with caller and worker in one process. Jobs are removed when they are completed: no history is kept. */
export async function create({ socketPath, callers, outstanding, concurrency }: BullmqOrders): Promise<RateLoad> {
  const connection = { path: socketPath, maxRetriesPerRequest: null }
  const queue = new Queue<Label>(QUEUE, { connection, defaultJobOptions: { removeOnComplete: true } })
  let onDone: (n: number) => void = () => undefined
  const worker = new Worker<Label>(QUEUE, async () => ({ ok: true }), { connection, concurrency })
  worker.on('completed', ({ data }) => onDone(data.n))
  const load = createRateLoad({
    callers,
    outstanding,
    async begin(n, done) {
      onDone = done
      await queue.add('run', { n })
    },
  })
  queue.on('error', load.fail)
  worker.on('error', load.fail)
  await worker.waitUntilReady()
  return load
}
