import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { inspect } from 'node:util'
import pg from 'pg'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../db/embedded-postgres.ts'
import { type Account, registerAccounts } from './accounts.ts'
import { type Server, startSignalbox } from './signalbox.ts'

/** What all measurements of a run share: one PostgreSQL, where each has a database of its own, and a folder. */
export interface Stand extends AsyncDisposable {
  directory: string
  postgres: EmbeddedPostgres
  /** Made when it is first asked for, and kept for the run. */
  once<T>(name: string, make: () => Promise<T>): Promise<T>
  /** A new database, empty or a copy of another. */
  createDatabase(template?: string): Promise<Database>
  /** So many registered clients, and the database that has them: to be copied. */
  accounts(count: number): Promise<{ template: string; accounts: Account[] }>
  /** With the default settings, but for those. */
  startServer(database: Database, settings?: Record<string, string>): Promise<Server>
  /** What is measured now: CPU profiles are named after it. */
  measuring: string
  /** Says what happens, on stderr. */
  say(line: string): void
}

export interface Database extends AsyncDisposable {
  name: string
  url: string
  query<Row extends Record<string, unknown>>(sql: string, values?: unknown[]): Promise<Row[]>
  /** The harness's own connection ends: a database is copied only while nobody is in it. */
  leave(): Promise<void>
}

export interface StandOptions {
  /** CPU profiles of our server are written there. */
  profileDirectory?: string | undefined
  say(line: string): void
}

export async function createStand({ profileDirectory, say }: StandOptions): Promise<Stand> {
  const directory = await mkdtemp(join(tmpdir(), 'signalbox-bench-'))
  if (profileDirectory) await mkdir(profileDirectory, { recursive: true })
  // A PostgreSQL that had to be started again spoils the figures: that is said, and that it starts and stops is not.
  const warn = (details: object, message: string): void => say(`${message} ${inspect(details)}`)
  const log = { info: () => undefined, warn, error: warn }
  const postgres = await startEmbeddedPostgres({ dataDir: join(directory, 'postgres'), log })
  const urlOf = (name: string): string => postgres.url.replace(/\/signalbox$/, `/${name}`)
  const openPool = (name: string): pg.Pool => {
    const pool = new pg.Pool({ connectionString: urlOf(name), max: 1 })
    // An idle connection that is lost is made anew by the next query, which throws if that cannot be. One that is being ended may be
    // told that PostgreSQL stops, or that its database is dropped.
    pool.on('error', () => undefined)
    return pool
  }
  const admin = openPool('postgres')
  const made = new Map<string, Promise<unknown>>()
  let databases = 0
  let starts = 0

  const stand: Stand = {
    directory,
    postgres,
    measuring: 'nothing',
    say,
    once<T>(name: string, make: () => Promise<T>) {
      const known = made.get(name) ?? make()
      made.set(name, known)
      return known as Promise<T>
    },
    async createDatabase(template = 'template0') {
      const name = `bench_${++databases}`
      await admin.query(`create database ${name} template ${template}`)
      // What the copying wrote is not to be written during the measurement.
      await admin.query('checkpoint')
      const pool = openPool(name)
      return {
        name,
        url: urlOf(name),
        query: async (sql, values) => (await pool.query(sql, values)).rows,
        leave: () => pool.end(),
        async [Symbol.asyncDispose]() {
          if (!pool.ended) await pool.end()
          await admin.query(`drop database ${name} with (force)`)
        },
      }
    },
    accounts: (count) => stand.once(`accounts ${count}`, () => registerAccounts(stand, count)),
    startServer: ({ url }, settings = {}) =>
      startSignalbox({
        databaseUrl: url,
        settings,
        logFile: join(directory, 'server.log'),
        profile: profileDirectory
          ? { directory: resolve(profileDirectory), name: `${stand.measuring}-${++starts}` }
          : undefined,
      }),
    async [Symbol.asyncDispose]() {
      await admin.end()
      await postgres.stop()
      await rm(directory, { recursive: true, force: true })
    },
  }
  return stand
}
