import { randomUUID } from 'node:crypto'
import { accessSync, constants, existsSync, mkdirSync, renameSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { JournalMark } from './journal-mark.ts'
import { JournalDamagedError, JournalStore, sealFor } from './journal-store.ts'
import type { AgentLog } from './log.ts'

const VERSION = 2
const SCHEMA = `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
  CREATE TABLE attempts (
    command_id  TEXT NOT NULL,
    attempt     INTEGER NOT NULL,
    state       TEXT NOT NULL,
    reported    INTEGER NOT NULL,
    action      TEXT,             -- absent, like command: the tombstone of a cancel for a command that never came
    priority    INTEGER,
    command     TEXT,             -- the message as it came, JSON
    result      TEXT,             -- JSON
    error       TEXT,             -- JSON
    progress    TEXT,             -- JSON, the last before the outcome
    boot_id     TEXT,             -- of the boot that arrived_ms and deadline_ms count from
    arrived_ms  REAL,
    deadline_ms REAL,
    outcome_seq INTEGER,          -- order of the reports
    received_at TEXT NOT NULL,    -- the device's wall clock: for people, nothing is decided by it but pruning
    started_at  TEXT,
    finished_at TEXT,
    reported_at TEXT,
    PRIMARY KEY (command_id, attempt)
  ) STRICT;
  CREATE INDEX attempts_open ON attempts (command_id) WHERE state IN ('accepted', 'started', 'waiting');
  CREATE INDEX attempts_unreported ON attempts (outcome_seq) WHERE reported = 0 AND outcome_seq IS NOT NULL;
`
/** What SQLite says of the place and not of the bytes: permission, in use, no memory, read-only, full and the like. */
const OF_THE_PLACE = new Set([3, 5, 6, 7, 8, 10, 13, 14, 22, 23])
const SQLITE_CORRUPT = 11
const SQLITE_BUSY = 5
const SQLITE_READONLY = 8

/**
 * Opens or makes the journal's SQLite file, for this process alone. A damaged file is set aside as
 * `<file>.corrupt-<time>` and a new one, with a new journalId, takes its place.
 * Throws if another agent uses the file or it cannot be opened for another reason.
 */
export function openJournalFile(file: string, log: AgentLog): { store: JournalStore; close(): void } {
  if (file === ':memory:') {
    const store = new JournalStore(openDatabase(file, false).db, true)
    return { store, close: () => store.close() }
  }
  mkdirSync(dirname(file), { recursive: true })
  const lock = lockFile(`${file}.lock`, file)
  try {
    const store = openOrReplace(file, log)
    const close = (): void => {
      store.close()
      lock.close()
    }
    return { store, close }
  } catch (error) {
    lock.close()
    throw error
  }
}

/** Held open: the operating system releases it however the process ends. The journal itself stays open to inspection. */
function lockFile(path: string, file: string): DatabaseSync {
  const lock = new DatabaseSync(path, { timeout: 1000 })
  try {
    lock.exec('BEGIN EXCLUSIVE')
    return lock
  } catch (error) {
    lock.close()
    if (sqliteCode(error) === SQLITE_BUSY) throw new Error(`journal ${file} is in use by another process`)
    throw error
  }
}

function openOrReplace(file: string, log: AgentLog): JournalStore {
  const mark = new JournalMark(`${file}.mark`)
  try {
    return openStore(file, mark)
  } catch (error) {
    if (!saysDamaged(error, file)) {
      mark.close()
      throw error
    }
    const aside = `${file}.corrupt-${new Date().toISOString().replaceAll(/[:.]/g, '-')}`
    for (const suffix of ['', '-wal', '-shm']) {
      if (existsSync(file + suffix)) renameSync(file + suffix, aside + suffix)
    }
    const reason = (error as Error).message
    log.error({ file, aside, reason }, 'The journal is damaged: it was set aside and a new one begins')
    return openStore(file, mark)
  }
}

function openStore(file: string, mark: JournalMark): JournalStore {
  const { db, made } = openDatabase(file, mark.found)
  try {
    return new JournalStore(db, made, mark)
  } catch (error) {
    db.close()
    throw error
  }
}

function saysDamaged(error: unknown, file: string): boolean {
  if (error instanceof JournalDamagedError) return true
  const code = sqliteCode(error)
  // A file that can be written and says that it must not be: a wrong byte in its header.
  if (code === SQLITE_READONLY) return isWritable(file)
  return code !== undefined && !OF_THE_PLACE.has(code)
}

function isWritable(file: string): boolean {
  try {
    accessSync(file, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** `ours`: there is a mark beside it, so whatever it looks like, it was a journal of this version. */
function openDatabase(file: string, ours: boolean): { db: DatabaseSync; made: boolean } {
  const db = new DatabaseSync(file, { timeout: 1000 })
  try {
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
    const check = db.prepare('PRAGMA integrity_check(1)').get()?.integrity_check
    if (check !== 'ok') throw Object.assign(new Error(String(check)), { errcode: SQLITE_CORRUPT })
    const made = migrate(db, file, ours)
    // Whether it can be written at all is not found out by the first command.
    db.exec(`BEGIN IMMEDIATE; PRAGMA user_version = ${VERSION}; ROLLBACK`)
    return { db, made }
  } catch (error) {
    db.close()
    throw error
  }
}

/** Answers whether it begins now: a new journal, or one from before there were marks, which is trusted this once. */
function migrate(db: DatabaseSync, file: string, ours: boolean): boolean {
  const version = db.prepare('PRAGMA user_version').get()?.user_version
  if (version === VERSION) return false
  const tables = db.prepare('SELECT count(*) AS n FROM sqlite_schema').get()?.n
  if (version !== 1 && (version !== 0 || tables !== 0)) {
    const message = `${file} is no journal that this version of the agent can use`
    throw ours ? new JournalDamagedError(message) : new Error(message)
  }
  db.exec('BEGIN IMMEDIATE')
  if (version === 0) {
    db.exec(SCHEMA)
    db.prepare("INSERT INTO meta VALUES ('journalId', ?)").run(randomUUID())
  }
  db.prepare("INSERT INTO meta VALUES ('seal', ?)").run(sealFor(db))
  db.exec(`PRAGMA user_version = ${VERSION}; COMMIT`)
  return version === 0 || !ours
}

/** The primary result code; the extended ones carry it in their low byte. */
function sqliteCode(error: unknown): number | undefined {
  const code = (error as { errcode?: unknown }).errcode
  return typeof code === 'number' ? code & 0xff : undefined
}
