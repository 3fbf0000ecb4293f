import cluster, { type Worker } from 'node:cluster'
import { type Addresses, createApp, startDatabase, startRelay } from '../app.ts'
import type { Settings } from '../schemas/settings.ts'
import { exitAfter, stopOnSignal } from './stop-on-signal.ts'

/** A worker that ends is replaced, but not more often than this. */
const RESPAWN_MS = 1000

/**
 * One server in several processes: they share the listening ports and the database, and each is a node of its own. Runs until
 * SIGINT or SIGTERM; a second signal ends everything at once.
 */
export async function serveWithWorkers(
  settings: Settings,
  count: number,
  show: (addresses: Addresses) => void,
): Promise<void> {
  const database = await startDatabase(settings, count)
  startRelay()
  let stopping = false

  async function start(): Promise<Addresses> {
    const worker = cluster.fork({ DATABASE_URL: database.url })
    // What was on its way to one that ends reaches nobody: that it has ended is told by its exit.
    worker.on('error', () => undefined)
    const addresses = await readyOf(worker)
    worker.once('exit', (code, signal) => replace(worker, signal ?? `code ${code}`))
    return addresses
  }

  function replace(worker: Worker, why: string): void {
    if (stopping) return
    console.error(`signalbox: worker ${worker.process.pid} ended (${why}); another one is started`)
    setTimeout(() => {
      if (stopping) return
      start().catch((error: Error) => {
        console.error(`signalbox: ${error.message}`)
        replace(worker, 'its successor did not start')
      })
    }, RESPAWN_MS)
  }

  const workers = (): Worker[] => Object.values(cluster.workers ?? {}).filter((worker) => worker !== undefined)

  function kill(): void {
    for (const worker of workers()) worker.process.kill('SIGKILL')
  }

  async function stop(): Promise<void> {
    stopping = true
    await Promise.all(
      workers().map((worker) => {
        worker.process.kill('SIGTERM')
        return new Promise((resolve) => worker.once('exit', resolve))
      }),
    )
    await database.stop()
  }
  stopOnSignal(stop, kill)

  try {
    // The first one alone: it brings the schema up to date, and makes the administrator if there is none.
    const addresses = await start()
    await Promise.all(Array.from({ length: count - 1 }, start))
    show({ ...addresses, database: database.shown })
  } catch (error) {
    stopping = true
    kill()
    await database.stop()
    throw error
  }
}

/** Where it can be reached, as all workers, once it is ready. */
function readyOf(worker: Worker): Promise<Addresses> {
  return new Promise((resolve, reject) => {
    const hear = ({ ready }: { ready?: Addresses }): void => {
      if (!ready) return
      worker.off('message', hear)
      resolve(ready)
    }
    worker.on('message', hear)
    worker.once('exit', (code, signal) => reject(new Error(`a worker ended (${signal ?? code}) before it was ready`)))
  })
}

/** One of the workers. A signal of the terminal reaches it too: only its primary tells it to stop. */
export async function serveAsWorker(settings: Settings): Promise<void> {
  const app = createApp(settings, { isWorker: true })
  process.on('SIGINT', () => undefined)
  process.once('SIGTERM', () => exitAfter(app.stop()))
  process.send?.({ ready: await app.start() })
}
