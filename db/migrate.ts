import { sql } from 'kysely'
import { type Migration, Migrator } from 'kysely/migration'
import { type ConnectOptions, connectDatabase } from './connect.ts'
import { up as firstCommand } from './migrations/0001-first-command.ts'
import { up as groups } from './migrations/0002-groups.ts'
import { up as alerts } from './migrations/0003-alerts.ts'
import { up as governance } from './migrations/0005-governance.ts'
import { up as enrolments } from './migrations/0006-enrolments.ts'
import { up as consoleSessions } from './migrations/0007-console-sessions.ts'
import { up as severeSecurityEvents } from './migrations/0008-severe-security-events.ts'
import { up as nodes } from './migrations/0009-nodes.ts'
import { up as openWork } from './migrations/0010-open-work.ts'
import { up as endedEnrolments } from './migrations/0011-ended-enrolments.ts'
import { up as dueWork } from './migrations/0012-due-work.ts'
import { up as costOfARow } from './migrations/0013-cost-of-a-row.ts'

/** Frozen once released: a change is a new number. */
const MIGRATIONS: Record<string, Migration> = {
  '0001-first-command': { up: firstCommand },
  '0002-groups': { up: groups },
  '0003-alerts': { up: alerts },
  '0005-governance': { up: governance },
  '0006-enrolments': { up: enrolments },
  '0007-console-sessions': { up: consoleSessions },
  '0008-severe-security-events': { up: severeSecurityEvents },
  '0009-nodes': { up: nodes },
  '0010-open-work': { up: openWork },
  '0011-ended-enrolments': { up: endedEnrolments },
  '0012-due-work': { up: dueWork },
  '0013-cost-of-a-row': { up: costOfARow },
}

/**
 * Brings the schema up to date. Safe from several nodes at once: Kysely's migrator holds a PostgreSQL advisory lock. It works on a
 * connection of its own, where no statement has a time limit, neither ours nor PostgreSQL's: an index takes as long as its table
 * is large, and who comes second waits for the first.
 */
export async function migrate(to: Pick<ConnectOptions, 'connection' | 'timeoutSeconds'>): Promise<string[]> {
  const db = connectDatabase({ ...to, poolSize: 1, patient: true, onIdleError: () => undefined })
  try {
    return await db.connection().execute(async (connection) => {
      await sql`set statement_timeout = 0`.execute(connection)
      const migrator = new Migrator({ db: connection, provider: { getMigrations: async () => MIGRATIONS } })
      const { error, results = [] } = await migrator.migrateToLatest()
      if (error) throw error
      return results.map((result) => result.migrationName)
    })
  } finally {
    await db.destroy()
  }
}
