import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { inject } from 'vitest'
import { startEmbeddedPostgres } from '../../db/embedded-postgres.ts'
import { silent } from './silent-log.ts'

export interface TestDatabase {
  url: string
  /** SQL for the ledger, as a technician would ask it. */
  query<Row extends Record<string, unknown>>(sql: string, values?: unknown[]): Promise<Row[]>
  drop(): Promise<void>
}

/**
 * A PostgreSQL server of its own, for what another test's open transaction would disturb: the feed shows nothing above the oldest
 * transaction of the whole server.
 */
export async function createOwnServer(): Promise<TestDatabase> {
  const directory = await mkdtemp(join(tmpdir(), 'signalbox-own-'))
  const postgres = await startEmbeddedPostgres({ dataDir: join(directory, 'postgres'), log: silent })
  const pool = new pg.Pool({ connectionString: postgres.url, max: 2 })
  pool.on('error', () => undefined)
  return {
    url: postgres.url,
    query: async (sql, values) => (await pool.query(sql, values)).rows,
    async drop() {
      await pool.end()
      await postgres.stop()
      await rm(directory, { recursive: true, force: true })
    },
  }
}

/** A database of its own, cloned from the migrated template, or empty. */
export async function createTestDatabase({ empty = false } = {}): Promise<TestDatabase> {
  const name = `t_${randomBytes(6).toString('hex')}`
  await withAdmin((admin) => admin.query(`create database ${name} template ${empty ? 'template0' : 'signalbox'}`))
  const url = databaseUrl(name)
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => undefined)
  return {
    url,
    query: async (sql, values) => (await pool.query(sql, values)).rows,
    async drop() {
      await pool.end()
      await withAdmin((admin) => admin.query(`drop database if exists ${name} with (force)`))
    },
  }
}

const databaseUrl = (name: string): string => inject('postgresUrl').replace(/\/signalbox(\?|$)/, `/${name}$1`)

async function withAdmin(work: (admin: pg.Client) => Promise<unknown>): Promise<void> {
  const admin = new pg.Client({ connectionString: databaseUrl('postgres') })
  await admin.connect()
  try {
    await work(admin)
  } finally {
    await admin.end()
  }
}
