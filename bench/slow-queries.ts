import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Database, Stand } from './stand.ts'

/** Below this a statement is not looked at: to log all of them would slow them down. */
const LOOKED_AT_MS = 5

export interface SlowQueries {
  /** The longest that one statement took since then, or `LOOKED_AT_MS` if none took that long. */
  slowestMs(): { ms: number; statement: string }
}

/** From now on, as far as connections are concerned that this database has not had yet. */
export async function watchSlowQueries(stand: Stand, database: Database): Promise<SlowQueries> {
  await database.query(`alter database ${database.name} set log_min_duration_statement = ${LOOKED_AT_MS}`)
  const log = join(stand.directory, 'postgres', 'server.log')
  const from = statSync(log).size
  return {
    slowestMs() {
      const lines = readFileSync(log)
        .subarray(from)
        .toString()
        .matchAll(/duration: ([\d.]+) ms +(.*)/g)
      const seen = [...lines].map(([, ms, statement]) => ({ ms: Number(ms), statement: String(statement) }))
      return seen.reduce((worst, each) => (each.ms > worst.ms ? each : worst), { ms: LOOKED_AT_MS, statement: '' })
    },
  }
}
