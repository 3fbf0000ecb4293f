import { randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, renameSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { AgentLog } from './log.ts'

const VERSION = 1
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
/** SQLITE_CORRUPT and SQLITE_NOTADB: the bytes are wrong. A full disk or a missing permission says nothing about them. */
const DAMAGED = new Set([11, 26])
const SQLITE_BUSY = 5

export interface JournalFile {
  db: DatabaseSync
  /** Names this memory; made with it. */
  journalId: string
  close(): void
}

/**
 * Opens or makes the journal's SQLite file, for this process alone. A damaged file is set aside as
 * `<file>.corrupt-<time>` and a new one, with a new journalId, takes its place.
 * Throws if another agent uses the file or it cannot be opened for another reason.
 */
export function openJournalFile(file: string, log: AgentLog): JournalFile {
  const inMemory = file === ':memory:'
  if (!inMemory) mkdirSync(dirname(file), { recursive: true })
  const lock = inMemory ? undefined : lockFile(`${file}.lock`, file)
  try {
    const db = inMemory ? openDatabase(file) : openOrReplace(file, log)
    const close = (): void => {
      db.close()
      lock?.close()
    }
    return { db, journalId: readJournalId(db), close }
  } catch (error) {
    lock?.close()
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

function openOrReplace(file: string, log: AgentLog): DatabaseSync {
  try {
    return openDatabase(file)
  } catch (error) {
    if (!DAMAGED.has(sqliteCode(error) ?? -1)) throw error
    const aside = `${file}.corrupt-${new Date().toISOString().replaceAll(/[:.]/g, '-')}`
    for (const suffix of ['', '-wal', '-shm']) {
      if (existsSync(file + suffix)) renameSync(file + suffix, aside + suffix)
    }
    const reason = (error as Error).message
    log.error({ file, aside, reason }, 'The journal is damaged: it was set aside and a new one begins')
    return openDatabase(file)
  }
}

function openDatabase(file: string): DatabaseSync {
  const db = new DatabaseSync(file, { timeout: 1000 })
  try {
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
    const check = db.prepare('PRAGMA quick_check(1)').get()?.quick_check
    if (check !== 'ok') throw Object.assign(new Error(String(check)), { errcode: 11 })
    migrate(db, file)
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

function migrate(db: DatabaseSync, file: string): void {
  const version = db.prepare('PRAGMA user_version').get()?.user_version
  if (version === VERSION) return
  const tables = db.prepare('SELECT count(*) AS n FROM sqlite_schema').get()?.n
  if (version !== 0 || tables !== 0) throw new Error(`${file} is no journal that this version of the agent can use`)
  db.exec('BEGIN IMMEDIATE')
  db.exec(SCHEMA)
  db.prepare("INSERT INTO meta VALUES ('journalId', ?)").run(randomUUID())
  db.exec(`PRAGMA user_version = ${VERSION}; COMMIT`)
}

function readJournalId(db: DatabaseSync): string {
  return String(db.prepare("SELECT value FROM meta WHERE key = 'journalId'").get()?.value)
}

/** The primary result code; the extended ones carry it in their low byte. */
function sqliteCode(error: unknown): number | undefined {
  const code = (error as { errcode?: unknown }).errcode
  return typeof code === 'number' ? code & 0xff : undefined
}
