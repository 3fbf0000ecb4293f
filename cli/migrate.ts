import { migrateOnly } from '../app.ts'
import { NotDoneError, reasonOf } from './failures.ts'
import { createOutput } from './output.ts'
import { settingsFromEnvironment } from './settings.ts'

/** Brings the schema of DATABASE_URL, or of the embedded database, up to date. Safe beside running servers. */
export async function migrate({ json = false }: { json?: boolean }): Promise<void> {
  const settings = settingsFromEnvironment()
  let applied: string[]
  try {
    applied = await migrateOnly(settings)
  } catch (error) {
    throw new NotDoneError(`migrate: ${reasonOf(error)}`)
  }
  createOutput(json).show({ applied }, () =>
    applied.length === 0 ? 'the schema was up to date' : applied.map((name) => `applied ${name}`).join('\n'),
  )
}
