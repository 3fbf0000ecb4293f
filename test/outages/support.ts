import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { type Network, startNetwork } from '../support/database-faults.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'

/** DATABASE_TIMEOUT_SECONDS of these tests. */
const TIMEOUT_SECONDS = 1
/** An answer comes within the time limit and this. */
export const IN_TIME_MS = TIMEOUT_SECONDS * 1000 + 600

export interface Breakable {
  database: TestDatabase
  network: Network
  server: TestServer
  stop(): Promise<void>
}

/** A server whose way to PostgreSQL can be broken. */
export async function startBreakable(settings: Record<string, unknown> = {}): Promise<Breakable> {
  const database = await createTestDatabase()
  const network = await startNetwork(database)
  const server = await startServer(
    { DATABASE_URL: network.url, DATABASE_TIMEOUT_SECONDS: TIMEOUT_SECONDS, SWEEP_INTERVAL_SECONDS: 1, ...settings },
    { database },
  )
  return {
    database,
    network,
    server,
    async stop() {
      await server.stop()
      await network.stop()
      await database.drop()
    },
  }
}

export const healthy = (server: TestServer): Promise<boolean> =>
  until(async () => (await fetch(`${server.http}/health`)).ok, 'a healthy server')

/** Resolves with what came and how long it took, ms. */
export async function timed<T>(work: Promise<T>): Promise<{ answer: T; ms: number }> {
  const start = performance.now()
  const answer = await work
  return { answer, ms: performance.now() - start }
}
