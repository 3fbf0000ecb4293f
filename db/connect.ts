import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import type { Database } from './schema.ts'

export type Db = Kysely<Database>

export interface ConnectOptions {
  /** A postgres:// URL, or the settings of the embedded server. */
  connection: string | { host: string; port: number; user: string; database: string }
  poolSize: number
  /** No answer for this long counts as down: a connection, a statement. */
  timeoutSeconds: number
  /** Statements may take as long as they need. */
  patient?: boolean
  onIdleError(error: Error): unknown
}

/** Session epochs, event ids and counts stay far below 2^53, so int8 is a number here. */
const INT8 = 20

/**
 * Whatever is asked here is found through an index. A prepared statement keeps the plan that was made when the tables were small,
 * and reading a small table whole, for each row of a batch, looks cheap until the table has grown.
 */
const PLANNER = 'set enable_seqscan = off'

/** One name per statement text, so that each connection parses and plans it once. */
const statementNames = new Map<string, string>()

class PreparingClient extends pg.Client {
  constructor(config?: pg.ClientConfig) {
    super(config)
    // A connection that dies while a statement uses it rejects that statement; without a listener it would end the process too.
    this.on('error', () => undefined)
  }

  // biome-ignore lint/suspicious/noExplicitAny: pg declares a dozen overloads; Kysely uses only (sql, values)
  override query(...args: any[]): any {
    const [sql, values] = args
    const named = typeof sql === 'string' && Array.isArray(values) && values.length > 0
    // biome-ignore lint/suspicious/noExplicitAny: as above
    const answer = (super.query as any)(...(named ? [{ name: nameOf(sql), text: sql, values }] : args))
    // pg leaves a timed-out statement running and gives the connection back to the pool, where the next one would wait behind it.
    answer?.catch?.((error: Error) => {
      if (error.message === 'Query read timeout') this.connection.stream.destroy()
    })
    return answer
  }
}

function nameOf(sql: string): string {
  let name = statementNames.get(sql)
  if (!name) {
    name = `s${statementNames.size}`
    statementNames.set(sql, name)
  }
  return name
}

/** Opens the pool; connections are made when they are needed. */
export function connectDatabase(options: ConnectOptions): Db {
  const getTypeParser = (oid: number, format?: 'text' | 'binary') =>
    oid === INT8 ? Number : pg.types.getTypeParser(oid, format as 'text')
  const pool = new pg.Pool({
    ...(typeof options.connection === 'string' ? { connectionString: options.connection } : options.connection),
    Client: PreparingClient,
    types: { getTypeParser },
    max: options.poolSize,
    connectionTimeoutMillis: options.timeoutSeconds * 1000,
    ...(options.patient ? {} : { query_timeout: options.timeoutSeconds * 1000 }),
    application_name: 'signalbox',
    keepAlive: true,
    onConnect: (client: pg.ClientBase) => client.query(PLANNER),
  } as pg.PoolConfig)
  pool.on('error', options.onIdleError)
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
}

/**
 * Whether an error means that PostgreSQL is out of reach, shutting down or out of resources, so that the outcome of the
 * statement is not known or a repetition may succeed: no SQLSTATE at all (socket, time-out), or class 08, 25 (a server that has become read-only), 53, 57, 58, XX.
 */
export function isDatabaseDown(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  // Whatever the cause, the connection is refused or over: the database takes none (55000), is gone (3D000), or denies the log-in.
  if ((error as { severity?: unknown }).severity === 'FATAL') return true
  const code = sqlState(error)
  if (code !== undefined) return /^(08|25|53|57|58|XX)/.test(code)
  const name = (error as { code?: unknown }).code
  if (typeof name === 'string') return /^(E[A-Z]+)$/.test(name)
  return /timeout|terminated|Connection|not queryable|Cannot use a pool/i.test(error.message)
}

/** Whether the statement lost a race that a repetition may win: deadlock or serialization failure. */
export const isRaceLost = (error: unknown): boolean => /^40/.test(sqlState(error) ?? '')

/** Whether one bad value made the whole statement fail: data exception or constraint violation. */
export const isBadValue = (error: unknown): boolean => /^(22|23)/.test(sqlState(error) ?? '')

function sqlState(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code) ? code : undefined
}
