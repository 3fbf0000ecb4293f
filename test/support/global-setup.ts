import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { startEmbeddedPostgres } from '../../db/embedded-postgres.ts'
import { migrate } from '../../db/migrate.ts'
import { silent } from './silent-log.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The server that all test files share; `signalbox` is the migrated template. */
    postgresUrl: string
  }
}

/** One PostgreSQL for all test files; each clones its databases from the migrated template. */
export default async function setup(project: TestProject) {
  const directory = mkdtempSync(join(tmpdir(), 'signalbox-test-'))
  const postgres = await startEmbeddedPostgres({ dataDir: join(directory, 'postgres'), log: silent })
  await migrate({ connection: postgres.connection, timeoutSeconds: 10 })
  project.provide('postgresUrl', postgres.url)
  return async () => {
    await postgres.stop()
    rmSync(directory, { recursive: true, force: true })
  }
}
