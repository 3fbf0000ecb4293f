import cluster, { type Worker } from 'node:cluster'
import { RateLimiterCluster, RateLimiterClusterMaster } from 'rate-limiter-flexible'
import { countAlone, type Line, type LineListeners, NO_LIMIT } from './line.ts'

/** Told apart from what Node and the counters send over the same channel. */
interface Relayed {
  signalbox: string
}

const isRelayed = (message: unknown): message is Relayed => typeof (message as Relayed | null)?.signalbox === 'string'

const COUNTER_TIMEOUT_MS = 1000

/** In the process that started the workers: passes on what each tells the others, and counts for them. */
export function relayWorkers(): void {
  new RateLimiterClusterMaster()
  cluster.on('message', (from: Worker, message: unknown) => {
    if (!isRelayed(message)) return
    for (const worker of Object.values(cluster.workers ?? {}))
      if (worker && worker !== from && worker.isConnected()) worker.send(message)
  })
}

/** The line of workers of one machine, through the process that started them. */
export function createWorkerLine(): Line {
  let listeners: LineListeners | undefined
  let sent = 0
  let failed = 0
  const receive = (message: unknown): void => {
    if (isRelayed(message)) listeners?.message(message.signalbox)
  }
  return {
    async open(_cluster, _node, given) {
      listeners = given
      process.on('message', receive)
    },
    send(text) {
      if (!process.connected) failed++
      else
        process.send?.({ signalbox: text } satisfies Relayed, undefined, undefined, (error) =>
          error ? failed++ : sent++,
        )
    },
    up: () => process.connected,
    counter(seconds) {
      const alone = countAlone(seconds)
      const options = { keyPrefix: 'signalbox', points: NO_LIMIT, duration: seconds, timeoutMs: COUNTER_TIMEOUT_MS }
      const shared = new RateLimiterCluster(options)
      return {
        penalty: (key, points) => shared.penalty(key, points).catch(() => alone.penalty(key, points)),
        reward: (key, points) => shared.reward(key, points).catch(() => alone.reward(key, points)),
      }
    },
    counts: () => ({ sent, failed }),
    async close() {
      process.off('message', receive)
    },
  }
}
