import { hash, randomUUID } from 'node:crypto'
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import type { JournalMark } from './journal-mark.ts'

export type Row = Record<string, string | number | null>

/** Of rows in any order: a row that comes and one that goes are the same operation. */
type Digest = bigint

/** SQLite found nothing wrong, and still these are not the bytes that were written. */
export class JournalDamagedError extends Error {}

/**
 * A journal's database, with a seal on it: the number of steps taken so far and a digest of all rows, kept in the same
 * transactions. SQLite has no checksums in its tables, so a flipped bit or a stale page can be a row that looks fine.
 */
export class JournalStore {
  /** The journal has lost steps that were acted on, or is a copy of an older one: it goes by its name wrongly until `renew`. */
  readonly lost: boolean
  readonly #db: DatabaseSync
  readonly #mark: JournalMark | undefined
  readonly #shape: string
  readonly #statements = new Map<string, StatementSync>()
  #journalId: string
  #steps: number
  #rows: Digest
  #marked: number

  /** `made`: just now, so nothing can be missing. Throws JournalDamagedError if the seal is broken. */
  constructor(db: DatabaseSync, made: boolean, mark?: JournalMark) {
    this.#db = db
    this.#mark = mark
    const state = readState(db)
    this.#shape = state.shape
    this.#journalId = state.journalId
    this.#steps = state.steps
    this.#rows = state.rows
    if (state.seal !== this.#seal()) throw new JournalDamagedError('the seal is broken')
    const last = made || !mark ? { journalId: state.journalId, steps: 0 } : mark.last
    this.#marked = last?.steps ?? 0
    this.lost = last?.journalId !== state.journalId || last.steps > state.steps
    if (made) mark?.begin({ journalId: state.journalId, steps: state.steps })
  }

  get journalId(): string {
    return this.#journalId
  }

  all(sql: string, ...values: (string | number)[]): Row[] {
    return this.#prepared(sql).all(...values) as Row[]
  }

  get(sql: string, ...values: (string | number)[]): Row | undefined {
    return this.#prepared(sql).get(...values) as Row | undefined
  }

  /** Inserts or changes one row of `attempts`, inside a transaction; `sql` has to return it. */
  put(sql: string, values: Row): void {
    // What is only in memory is never read back.
    if (!this.#mark) return void this.#prepared(sql).get(values)
    const before = this.get(
      'SELECT * FROM attempts WHERE command_id = ? AND attempt = ?',
      values.command_id as string,
      values.attempt as number,
    )
    const after = this.#prepared(sql).get(values) as Row
    this.#rows ^= digestOf(after) ^ (before ? digestOf(before) : 0n)
  }

  /** Deletes rows of `attempts`, inside a transaction; `sql` has to return them. */
  remove(sql: string, value: string): void {
    for (const row of this.all(sql, value)) this.#rows ^= digestOf(row)
  }

  /** One step: on disk when it returns; when it throws, nothing of it happened. */
  transact<T>(work: () => T): T {
    const before = { journalId: this.#journalId, steps: this.#steps, rows: this.#rows }
    this.#db.exec('BEGIN IMMEDIATE')
    try {
      const result = work()
      if (this.#rows !== before.rows || this.#journalId !== before.journalId) {
        this.#steps++
        this.#prepared("UPDATE meta SET value = ? WHERE key = 'seal'").run(this.#seal())
      }
      this.#db.exec('COMMIT')
      return result
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
      this.#journalId = before.journalId
      this.#steps = before.steps
      this.#rows = before.rows
      throw error
    }
  }

  /** From here on a journal that has lost any of the steps so far is noticed. On disk when it returns. */
  mark(): void {
    if (this.#marked >= this.#steps) return
    this.#mark?.write({ journalId: this.#journalId, steps: this.#steps })
    this.#marked = this.#steps
  }

  /** A new name, and `work` in the same transaction. */
  renew(work: () => void): void {
    this.transact(() => {
      work()
      this.#journalId = randomUUID()
      this.#prepared("UPDATE meta SET value = ? WHERE key = 'journalId'").run(this.#journalId)
    })
    this.#marked = this.#steps
    this.#mark?.begin({ journalId: this.#journalId, steps: this.#steps })
  }

  close(): void {
    this.#statements.clear()
    this.#db.close()
    this.#mark?.close()
  }

  #seal(): string {
    return sealOf(this.#journalId, this.#steps, this.#rows, this.#shape)
  }

  #prepared(sql: string): StatementSync {
    const known = this.#statements.get(sql) ?? this.#db.prepare(sql)
    this.#statements.set(sql, known)
    return known
  }
}

/** Seals what is there now: a journal that is new, or was made before there were seals. */
export function sealFor(db: DatabaseSync): string {
  const { journalId, rows, shape } = readState(db)
  return sealOf(journalId, 0, rows, shape)
}

/** `steps` can be read, the rest only be compared. */
function sealOf(journalId: string, steps: number, rows: Digest, shape: string): string {
  return `${steps} ${sha256([journalId, steps, rows.toString(16), shape])}`
}

function readState(db: DatabaseSync) {
  const meta = new Map(
    db
      .prepare('SELECT key, value FROM meta')
      .all()
      .map((row) => [row.key, String(row.value)]),
  )
  const seal = meta.get('seal')
  let rows: Digest = 0n
  for (const row of db.prepare('SELECT * FROM attempts').iterate()) rows ^= digestOf(row as Row)
  const shape = JSON.stringify(db.prepare('SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name').all())
  return { journalId: String(meta.get('journalId')), steps: Number.parseInt(seal ?? '0', 10), rows, seal, shape }
}

const digestOf = (row: Row): Digest => BigInt(`0x${sha256(row).slice(0, 32)}`)

const sha256 = (value: unknown): string => hash('sha256', JSON.stringify(value))
