import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { list, rows } from '../../db/rows.ts'
import { openStore, type Store } from '../executions/support/store.ts'

let store: Store
beforeAll(async () => {
  store = await openStore()
})
afterAll(() => store.stop())

const COLUMNS = {
  ord: 'integer',
  text: 'text',
  id: 'uuid',
  small: 'smallint',
  large: 'bigint',
  real: 'float8',
  yes: 'boolean',
  at: 'timestamptz',
  doc: 'json',
  docb: 'jsonb',
  bytes: 'bytea',
  numbers: 'integer[]',
}

/** What PostgreSQL can keep: neither U+0000 nor half a surrogate pair, which are refused where they come in. */
const text = fc
  .oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('', 'NULL', 'null', '"', '\\', '\\"', '{}', '{a,b}', ',', ' ', '\n\t', '\\n', "'", '$1', 'ß😀'),
  )
  .filter((value) => !value.includes('\u0000') && value.isWellFormed())
// Keys without escapes: JSON.parse of Node 24.21 takes "\"" for "\\" where an object with that key was parsed before.
const key = text.filter((value) => JSON.stringify(value) === `"${value}"`)
const doc = fc.oneof(
  text,
  fc.integer(),
  fc.boolean(),
  fc.array(text),
  fc.dictionary(key, text, { noNullPrototype: true }),
)
const row = fc.record(
  {
    text: fc.option(text),
    id: fc.option(fc.uuid()),
    small: fc.option(fc.integer({ min: -32768, max: 32767 })),
    large: fc.option(fc.maxSafeInteger()),
    real: fc.option(fc.double({ noNaN: true, noDefaultInfinity: true }).filter((value) => !Object.is(value, -0))),
    yes: fc.option(fc.boolean()),
    at: fc.option(fc.date({ min: new Date(0), max: new Date('2100-01-01'), noInvalidDate: true })),
    doc: fc.option(doc),
    docb: fc.option(doc),
    bytes: fc.option(fc.uint8Array()),
    numbers: fc.option(fc.array(fc.integer())),
  },
  { requiredKeys: [] },
)

test('PostgreSQL reads rows as they were given, in their order, and what is not there as null', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(row, { maxLength: 8 }), async (given) => {
      const input = given.map(({ at, bytes, ...values }, ord) => ({
        ...values,
        ord,
        at: at?.toISOString(),
        bytes: bytes && `\\x${Buffer.from(bytes).toString('hex')}`,
      }))
      const found = await sql<Record<string, unknown>>`select * from ${rows('i', COLUMNS, input)}`.execute(store.db)
      const nothing = Object.fromEntries(Object.keys(COLUMNS).map((name) => [name, null]))
      const expected = given.map((values, ord) => ({ ...nothing, ...withoutUndefined(values), ord }))
      expect(found.rows.map((one) => ({ ...one, bytes: one.bytes && new Uint8Array(one.bytes as Buffer) }))).toEqual(
        expected,
      )
    }),
    { numRuns: 300 },
  )
})

const withoutUndefined = (values: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined))

test('a statement about a batch is planned once, also when there is one row in it each time', async () => {
  await store.db.connection().execute(async (db) => {
    for (let round = 0; round < 30; round++) {
      await sql`
        select k.id from ${rows('i', { id: 'text' }, [{ id: `d${round}` }])}
        cross join lateral (select id from clients where id = i.id offset 0) k`.execute(db)
      await sql`select id from clients where id = any(${list('text', [`d${round}`])})`.execute(db)
    }
    const planned = await sql<{ custom_plans: number }>`
      select custom_plans from pg_prepared_statements where statement like '%from clients where id%'`.execute(db)
    // PostgreSQL tries five times before it decides.
    expect(planned.rows).toEqual([{ custom_plans: 5 }, { custom_plans: 5 }])
  })
})
