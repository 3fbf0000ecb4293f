import { type Migration, Migrator } from 'kysely/migration'
import type { Db } from './connect.ts'
import { up as firstCommand } from './migrations/0001-first-command.ts'
import { up as groups } from './migrations/0002-groups.ts'
import { up as alerts } from './migrations/0003-alerts.ts'
import { up as governance } from './migrations/0005-governance.ts'

/** Frozen once released: a change is a new number. */
const MIGRATIONS: Record<string, Migration> = {
  '0001-first-command': { up: firstCommand },
  '0002-groups': { up: groups },
  '0003-alerts': { up: alerts },
  '0005-governance': { up: governance },
}

/** Brings the schema up to date. Safe from several nodes at once: Kysely's migrator holds a PostgreSQL advisory lock. */
export async function migrate(db: Db): Promise<string[]> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => MIGRATIONS } })
  const { error, results = [] } = await migrator.migrateToLatest()
  if (error) throw error
  return results.map((result) => result.migrationName)
}
