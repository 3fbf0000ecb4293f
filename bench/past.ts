import type { Database } from './stand.ts'

/** Settled executions per statement, so that none holds everything back for long. */
const PER_STATEMENT = 50_000
const MS_PER_COPY = 60_000

/** The rows of one table that belong to a command, and which of its columns names that command. */
const TABLES = [
  { table: 'commands', command: 'id' },
  { table: 'executions', command: 'command_id' },
  { table: 'events', command: 'command_id' },
]

/**
 * Copies every command that is there, with its executions and events, so often into the past that so many executions are settled:
 * the nth copy is n minutes older, and so is its id, as time makes ids. What is copied is what the server itself wrote, whatever the
 * columns are.
 */
export async function fillHistory(database: Database, settled: number): Promise<void> {
  const [counted] = await database.query<{ count: string }>('select count(*) from executions')
  const [first] = await database.query<{ id: string }>('select id from commands order by id limit 1')
  const real = Number(counted?.count)
  const copies = Math.ceil(settled / real) - 1
  const perStatement = Math.max(1, Math.floor(PER_STATEMENT / real))
  const statements = await Promise.all(TABLES.map((table) => copying(database, table)))
  for (let from = 1; from <= copies; from += perStatement) {
    const to = Math.min(copies, from + perStatement - 1)
    for (const statement of statements) await database.query(statement, [from, to, first?.id])
  }
  // As if the followers of the feed had read it when it was written.
  await database.query('update feed_cursors set xid = pg_snapshot_xmin(pg_current_snapshot()), id = 0')
  await database.query('vacuum analyze')
  await database.query('checkpoint')
}

/** `insert … select` of all columns: ids and times are moved, what PostgreSQL numbers itself is left to it. */
async function copying(database: Database, { table, command }: (typeof TABLES)[number]): Promise<string> {
  const columns = await database.query<{ name: string; type: string }>(
    `select column_name as name, data_type as type from information_schema.columns
     where table_name = $1 and table_schema = 'public' and is_generated = 'NEVER' and is_identity = 'NO' and data_type <> 'xid8'
     order by ordinal_position`,
    [table],
  )
  const values = columns.map(({ name, type }) => {
    if (name === command) return older(`r.${name}`)
    return type === 'timestamp with time zone' ? `r.${name} - n * interval '${MS_PER_COPY} ms'` : `r.${name}`
  })
  // Only what was there at first: a copy is older than all of that.
  return `
    insert into ${table} (${columns.map(({ name }) => name).join(', ')})
    select ${values.join(', ')}
    from generate_series($1::bigint, $2::bigint) n
    cross join (select * from ${table} where ${command} >= $3::uuid) r`
}

/** A UUID of version 7 begins with its time, 48 bits of milliseconds. */
const older = (id: string): string => {
  const digits = `replace(${id}::text, '-', '')`
  const ms = `('x' || lpad(left(${digits}, 12), 16, '0'))::bit(64)::bigint - n * ${MS_PER_COPY}`
  return `(lpad(to_hex(${ms}), 12, '0') || substr(${digits}, 13))::uuid`
}
