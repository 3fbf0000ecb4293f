import { copyFileSync, existsSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import type { Luck } from './luck.ts'

// What may happen to the files of a journal while its agent is down. Each takes the path of the database.

type Damage = (file: string, luck: Luck) => void

const walOf = (file: string): string => `${file}-wal`
const markOf = (file: string): string => `${file}.mark`
const PARTS = (file: string): string[] => [file, walOf(file), `${file}-shm`, markOf(file)]

/** One to four bits, wherever there is something. */
function flip(file: string, luck: Luck): void {
  if (!existsSync(file)) return
  const bytes = readFileSync(file)
  const written = [...bytes.keys()].filter((at) => bytes[at] !== 0)
  for (let left = luck.between(1, 4); left > 0 && written.length > 0; left--) {
    const at = luck.pick(written)
    bytes[at] = (bytes[at] as number) ^ (1 << luck.between(0, 7))
  }
  writeFileSync(file, bytes)
}

/** The last transactions, some or all. */
function cutWal(file: string, luck: Luck): void {
  const wal = walOf(file)
  if (!existsSync(wal)) return
  const { size } = statSync(wal)
  // Mostly near the end, where what was started last is.
  const most = luck.chance(0.7) ? Math.min(size, 60_000) : size
  truncateSync(wal, size - luck.between(1, most))
}

/** Everything is in the database, as after a proper stop. */
function toRest(file: string): void {
  const db = new DatabaseSync(file)
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  db.close()
}

/** An older copy: what `keepCopy` kept. */
const backupOf = (file: string): string => `${file}.backup`

export function keepCopy(file: string): void {
  toRest(file)
  copyFileSync(file, backupOf(file))
}

function putBackupBack(file: string): void {
  for (const part of [file, walOf(file), `${file}-shm`]) rmSync(part, { force: true })
  copyFileSync(backupOf(file), file)
}

export const DAMAGES: Record<string, Damage> = {
  'the end of the WAL cut off': cutWal,
  'bits flipped in the WAL': (file, luck) => flip(walOf(file), luck),
  'bits flipped in the database': (file, luck) => {
    toRest(file)
    flip(file, luck)
  },
  'the WAL removed': (file) => rmSync(walOf(file), { force: true }),
  'all of it removed': (file) => {
    for (const part of PARTS(file)) rmSync(part, { force: true })
  },
  'the database removed': (file) => rmSync(file, { force: true }),
  'bits flipped in the mark': (file, luck) => flip(markOf(file), luck),
  'the mark removed': (file) => rmSync(markOf(file), { force: true }),
  'an old copy put back': putBackupBack,
}

/** By any SQLite tool; undefined where nothing can be read. */
export function journalIdOf(file: string): string | undefined {
  const db = new DatabaseSync(file, { readOnly: true })
  try {
    return String(db.prepare("SELECT value FROM meta WHERE key = 'journalId'").get()?.value)
  } finally {
    db.close()
  }
}
