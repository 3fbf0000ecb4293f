import pg from 'pg'
import { until } from '../support/until.ts'
import { freeze, gone, signal } from './postgres-processes.ts'
import type { SmallDisk } from './small-disk.ts'
import type { Stand } from './stand.ts'

/** One way to take PostgreSQL away from a running server. */
export interface Outage {
  /** Whether it lasts until we end it, or until PostgreSQL has come back by itself. */
  lasts: 'as long as chosen' | 'by itself'
  /** From its beginning to its end nothing at all is committed, and nothing is read. */
  total?: true
  /** PostgreSQL ends, or crashes, and starts anew. */
  restarts?: true
  /** Resolves when PostgreSQL is away. */
  begin(stand: Stand, disk: SmallDisk): Promise<End>
}

/** Gives PostgreSQL what was taken from it. */
type End = () => Promise<unknown> | undefined

const byItself: End = () => undefined

export const OUTAGES = {
  'fast shutdown': {
    lasts: 'by itself',
    restarts: true,
    async begin({ postgres }) {
      const pid = postmasterOf(postgres)
      signal(pid, 'SIGINT')
      await gone(pid)
      return byItself
    },
  },
  'postmaster killed': {
    lasts: 'by itself',
    restarts: true,
    async begin({ postgres }) {
      const pid = postmasterOf(postgres)
      signal(pid, 'SIGKILL')
      await gone(pid)
      return byItself
    },
  },
  'a backend killed': {
    lasts: 'by itself',
    restarts: true,
    async begin(stand) {
      const [backend] = await stand.sql<{ pid: number }>(
        `select pid from pg_stat_activity where application_name = 'signalbox' order by state = 'active' desc, random() limit 1`,
      )
      if (!backend) throw new Error('the server has no connection to PostgreSQL')
      // The postmaster throws out everybody, and recovers as after a crash.
      signal(backend.pid, 'SIGKILL')
      await gone(backend.pid)
      return byItself
    },
  },
  frozen: {
    lasts: 'as long as chosen',
    total: true,
    async begin({ postgres }) {
      const frozen = await freeze(postmasterOf(postgres))
      return () => frozen.thaw() as undefined
    },
  },
  'no room for tables': {
    lasts: 'as long as chosen',
    async begin(stand, disk) {
      // A new segment of the log has room for what is tried meanwhile.
      await stand.sql('select pg_switch_wal()')
      await stand.sql('create table if not exists filler (text text)')
      disk.fill()
      const fill = `insert into filler select repeat('x', 7000) from generate_series(1, 100)`
      await until(async () => (await errorOf(stand, fill))?.code === NO_ROOM, 'a table without room')
      return () => disk.free() as undefined
    },
  },
  'no room for the log': {
    lasts: 'as long as chosen',
    restarts: true,
    async begin(stand, disk) {
      disk.fill()
      const log = `select pg_logical_emit_message(false, 'filler', repeat('x', 1000000))`
      // What cannot be logged ends the whole server: no error of a statement, the connection is over.
      await until(async () => isOver(await errorOf(stand, log)), 'a crash for want of room')
      return () => disk.free() as undefined
    },
  },
} satisfies Record<string, Outage>

export type OutageName = keyof typeof OUTAGES

/** SQLSTATE disk_full. */
const NO_ROOM = '53100'

const postmasterOf = (postgres: Stand['postgres']): number => {
  const pid = postgres.pid()
  if (pid === undefined) throw new Error('PostgreSQL does not run')
  return pid
}

/** On a connection of its own: what becomes of it is seen too. */
async function errorOf(stand: Stand, sql: string): Promise<(Error & { code?: string }) | undefined> {
  const client = new pg.Client({ connectionString: stand.postgres.url, connectionTimeoutMillis: 2000 })
  client.on('error', () => undefined)
  try {
    await client.connect()
    await client.query(sql)
  } catch (error) {
    return error as Error
  } finally {
    await client.end().catch(() => undefined)
  }
}

const isOver = (error: (Error & { code?: string }) | undefined): boolean =>
  error !== undefined && (!/^[0-9A-Z]{5}$/.test(error.code ?? '') || /^(57|58|XX)/.test(error.code ?? ''))

/** When the life of the server began that it has now: a crash ends it, whether or not the postmaster survives. */
export async function lifeOf(stand: Stand): Promise<number> {
  const [row] = await stand.sql<{ since: Date }>(
    `select backend_start as since from pg_stat_activity where backend_type = 'checkpointer'`,
  )
  return row?.since.getTime() ?? 0
}

/** Resolves when PostgreSQL takes statements again. */
export async function untilBack(stand: Stand): Promise<void> {
  await until(async () => (await errorOf(stand, 'select 1')) === undefined, 'PostgreSQL back', 60_000)
}
