import { setTimeout as sleep } from 'node:timers/promises'
import { PgBoss } from 'pg-boss'
import { createRateLoad, type RateLoad } from '../load/rate-load.ts'
import type { Label } from '../load/work.ts'

export interface PgBossOrders {
  url: string
  callers: number
  outstanding: number
  /** Loops that fetch and complete; with 0 a job is done when it is stored. */
  workers: number
}

const QUEUE = 'bench'
const BATCH = 100
/** The most that helped, of 10, 20 and 40. */
const CONNECTIONS = 40
const EMPTY_WAIT_MS = 2

/**
 * pg-boss tuned for throughput: a queue with a table of its own, supervision and schedules off (its documentation leaves them to
 * another process), fetched and completed by the hundred. Caller and worker share the process, so nothing crosses a network.
 */
export async function create({ url, callers, outstanding, workers }: PgBossOrders): Promise<RateLoad> {
  const boss = new PgBoss({ connectionString: url, max: CONNECTIONS, supervise: false, schedule: false })
  let onDone: (n: number) => void = () => undefined

  const worker = async (): Promise<void> => {
    for (;;) {
      const jobs = await boss.fetch<Label>(QUEUE, { batchSize: BATCH })
      if (jobs.length === 0) await sleep(EMPTY_WAIT_MS)
      else {
        await boss.complete(
          QUEUE,
          jobs.map(({ id }) => id),
        )
        for (const { data } of jobs) onDone(data.n)
      }
    }
  }
  const load = createRateLoad({
    callers,
    outstanding,
    async begin(n, done) {
      onDone = done
      await boss.send(QUEUE, { n, label: 'a line of text as a label has it' })
      if (workers === 0) done(n)
    },
  })
  boss.on('error', load.fail)
  await boss.start()
  await boss.createQueue(QUEUE, { partition: true })
  for (let index = 0; index < workers; index++) worker().catch(load.fail)
  return load
}
