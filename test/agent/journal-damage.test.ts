import { cpSync, existsSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, onTestFinished, test } from 'vitest'
import { Journal } from '../../agent/journal.ts'
import { JournalMark } from '../../agent/journal-mark.ts'
import { createLuck } from '../faults/luck.ts'
import { cancelOf, command, idOf, temporaryDirectory, testLog } from './support/fixtures.ts'

const key = (n: number, attempt = 1) => ({ id: idOf(n), attempt })
const states = (journal: Journal, n: number) => journal.attempts(idOf(n)).map(({ state }) => state)

function directory(): string {
  const made = temporaryDirectory()
  onTestFinished(() => made[Symbol.dispose]())
  return made.path
}

const fileIn = (folder: string): string => join(folder, 'journal.sqlite')

function open(file: string): Journal {
  const journal = new Journal({ file, log: testLog() })
  onTestFinished(() => journal.close())
  return journal
}

/** The files as a kill -9 leaves them now: copied while the journal is open, with all that is only in its WAL. */
function killed(folder: string): string {
  const copy = directory()
  for (const name of readdirSync(folder)) {
    if (!name.endsWith('.lock') && !name.endsWith('-shm')) cpSync(join(folder, name), join(copy, name))
  }
  return copy
}

const flip = (file: string, ...offsets: number[]): void => {
  const bytes = readFileSync(file)
  for (const offset of offsets) bytes[offset] = (bytes[offset] as number) ^ 0x11
  writeFileSync(file, bytes)
}

const STARTED = [1, 2, 3, 4, 5, 6, 7, 8]
const CANCELLED = [21, 22, 23, 24]
const REJECTED = [31, 32]
const ACCEPTED = [41, 42, 43, 44, 45, 46, 47, 48]

/** A journal with some of everything, in the order of a device's day: what was told, what runs, what waits. */
function livedIn(): { folder: string; journal: Journal } {
  const folder = directory()
  const journal = open(fileIn(folder))
  for (const n of STARTED.slice(0, 4)) {
    journal.received(command(n))
    journal.started(key(n))
    journal.finished(key(n), { status: 'completed' })
    journal.acknowledged(key(n))
  }
  for (const n of CANCELLED) {
    journal.received(command(n))
    journal.cancelled(cancelOf(n, { journalId: journal.journalId }))
    journal.report(key(n))
    journal.acknowledged(key(n))
  }
  for (const n of REJECTED) {
    journal.received(command(n))
    journal.gaveUp(key(n), { status: 'rejected' })
    journal.report(key(n))
  }
  for (const n of ACCEPTED) journal.received(command(n, { payload: { n, text: 'x'.repeat(300) } }))
  for (const n of STARTED.slice(4)) {
    journal.received(command(n))
    journal.started(key(n))
  }
  return { folder, journal }
}

/**
 * The one thing that must never be: a journal that goes by its old name, so that the server takes its word and hands over again
 * what it had before, and no longer knows what was started or given up, or has another command than the one that came.
 */
function expectHonest(folder: string, before: string): 'same' | 'new' {
  const journal = new Journal({ file: fileIn(folder), log: testLog() })
  try {
    journal.recover()
    if (journal.journalId !== before) {
      expect(journal.ready()).toEqual([])
      return 'new'
    }
    for (const n of STARTED) expect(['completed', 'outcome_unknown'], `command ${n}`).toContain(states(journal, n)[0])
    for (const n of CANCELLED) expect(states(journal, n), `command ${n}`).toEqual(['cancelled'])
    for (const n of REJECTED) expect(states(journal, n), `command ${n}`).toEqual(['rejected'])
    for (const { id, attempt } of journal.ready()) {
      const n = Number(id.slice(-4))
      expect(ACCEPTED).toContain(n)
      expect(journal.started({ id, attempt })).toEqual(command(n, { payload: { n, text: 'x'.repeat(300) } }))
    }
    return 'same'
  } finally {
    journal.close()
  }
}

test('a kill -9 at the end of it all takes nothing away', () => {
  const { folder, journal } = livedIn()
  const copy = killed(folder)
  expect(expectHonest(copy, journal.journalId)).toBe('same')
  const again = open(fileIn(killed(folder)))
  expect(again.ready()).toHaveLength(ACCEPTED.length)
})

test('a start that is lost with the tail of the WAL is noticed: the journal is a new one and runs nothing again', () => {
  const folder = directory()
  const journal = open(fileIn(folder))
  journal.received(command(1))
  const wal = `${fileIn(folder)}-wal`
  const before = statSync(wal).size
  journal.started(key(1))
  const copy = killed(folder)
  truncateSync(`${fileIn(copy)}-wal`, before)
  const again = open(fileIn(copy))
  expect(again.journalId).not.toBe(journal.journalId)
  expect(again.ready()).toEqual([])
  expect(again.report(key(1))).toMatchObject({ status: 'outcome_unknown', error: { code: 'JOURNAL_INCOMPLETE' } })
})

test('what is left of a torn journal is still told: outcomes as they were, the rest as unknown', () => {
  const folder = directory()
  const journal = open(fileIn(folder))
  for (const n of [1, 2, 3]) journal.received(command(n))
  journal.started(key(1))
  journal.finished(key(1), { status: 'completed', result: 'done' })
  const before = statSync(`${fileIn(folder)}-wal`).size
  journal.started(key(2))
  const copy = killed(folder)
  truncateSync(`${fileIn(copy)}-wal`, before)
  const again = open(fileIn(copy))
  expect(again.report(key(1))).toMatchObject({ status: 'completed', result: 'done' })
  expect([2, 3].map((n) => states(again, n))).toEqual([['outcome_unknown'], ['outcome_unknown']])
  again.received(command(3))
  expect(again.ready()).toEqual([])
})

test('a cancel that was told is not forgotten with the tail of the WAL', () => {
  const folder = directory()
  const journal = open(fileIn(folder))
  journal.received(command(1))
  const before = statSync(`${fileIn(folder)}-wal`).size
  journal.cancelled(cancelOf(1, { journalId: journal.journalId }))
  expect(journal.report(key(1))).toMatchObject({ status: 'cancelled' })
  const copy = killed(folder)
  truncateSync(`${fileIn(copy)}-wal`, before)
  const again = open(fileIn(copy))
  expect(again.journalId).not.toBe(journal.journalId)
  expect(again.ready()).toEqual([])
})

test('what nobody was told of may be lost: the journal stays what it is', () => {
  const folder = directory()
  const journal = open(fileIn(folder))
  journal.received(command(1))
  journal.started(key(1))
  const before = statSync(`${fileIn(folder)}-wal`).size
  journal.finished(key(1), { status: 'completed' })
  const copy = killed(folder)
  truncateSync(`${fileIn(copy)}-wal`, before)
  const again = open(fileIn(copy))
  expect(again.journalId).toBe(journal.journalId)
  expect(states(again, 1)).toEqual(['started'])
})

test('a journal brought back from a backup is a new one', () => {
  const { folder, journal } = livedIn()
  const backup = killed(folder)
  journal.started(key(41))
  const mark = `${fileIn(folder)}.mark`
  cpSync(mark, `${fileIn(backup)}.mark`)
  expect(expectHonest(backup, journal.journalId)).toBe('new')
  const alone = killed(folder)
  rmSync(`${fileIn(alone)}.mark`)
  expect(expectHonest(alone, journal.journalId)).toBe('new')
})

test('a journal that was renewed stays the new one', () => {
  const { folder } = livedIn()
  const copy = killed(folder)
  rmSync(`${fileIn(copy)}.mark`)
  const renewed = new Journal({ file: fileIn(copy), log: testLog() })
  const { journalId } = renewed
  renewed.received(command(60))
  renewed.close()
  const again = open(fileIn(copy))
  expect(again.journalId).toBe(journalId)
  expect(again.ready()).toMatchObject([key(60)])
})

test('a start that could not be marked is taken up again, and nobody else is held up by it', () => {
  const folder = directory()
  const journal = open(fileIn(folder))
  for (const n of [1, 2]) journal.received(command(n))
  const { write } = JournalMark.prototype
  JournalMark.prototype.write = () => {
    throw new Error('no space')
  }
  try {
    expect(() => journal.started(key(1))).toThrow('no space')
  } finally {
    JournalMark.prototype.write = write
  }
  expect(journal.started(key(2))).toEqual(command(2))
  expect(journal.started(key(1))).toEqual(command(1))
  expect(() => journal.started(key(1))).toThrow('may not start')
})

test('a journal from before there were marks is taken over as it is', () => {
  const { folder, journal } = livedIn()
  const copy = killed(folder)
  const db = new DatabaseSync(fileIn(copy))
  db.exec("DELETE FROM meta WHERE key = 'seal'; PRAGMA user_version = 1")
  db.close()
  rmSync(`${fileIn(copy)}.mark`)
  expect(expectHonest(copy, journal.journalId)).toBe('same')
  expect(expectHonest(copy, journal.journalId)).toBe('same')
})

test.each(['journal.sqlite', 'journal.sqlite-wal'])(
  'whichever bytes of %s are flipped, nothing is started that was started before',
  (name) => {
    const { folder, journal } = livedIn()
    const luck = createLuck(4)
    const seen = { same: 0, new: 0 }
    // At rest everything is in the database; after a kill everything is in the WAL.
    const source = name === 'journal.sqlite' ? atRest(folder) : killed(folder)
    for (let round = 0; round < 80; round++) {
      const copy = directory()
      cpSync(source, copy, { recursive: true })
      const file = join(copy, name)
      const { size } = statSync(file)
      flip(file, ...Array.from({ length: luck.between(1, 3) }, () => luck.between(0, size - 1)))
      seen[expectHonest(copy, journal.journalId)]++
      rmSync(copy, { recursive: true })
    }
    expect(seen.new).toBeGreaterThan(0)
  },
)

test('a mark of which half is damaged still counts; one that cannot be read is none', () => {
  const { folder, journal } = livedIn()
  const copies = [[0], [4096], [0, 4096]].map((slots) => {
    const copy = killed(folder)
    flip(`${fileIn(copy)}.mark`, ...slots)
    return expectHonest(copy, journal.journalId)
  })
  expect(copies).toEqual(['same', 'same', 'new'])
})

test('whatever is wrong in the header of the database, the agent starts', () => {
  const { folder, journal } = livedIn()
  const source = atRest(folder)
  for (let offset = 0; offset < 100; offset++) {
    const copy = directory()
    cpSync(source, copy, { recursive: true })
    flip(fileIn(copy), offset)
    expectHonest(copy, journal.journalId)
    rmSync(copy, { recursive: true })
  }
})

test('wherever the WAL is cut off, nothing is started that was started before', () => {
  const { folder, journal } = livedIn()
  const source = killed(folder)
  const { size } = statSync(join(source, 'journal.sqlite-wal'))
  const luck = createLuck(5)
  const seen = { same: 0, new: 0 }
  for (let round = 0; round < 80; round++) {
    const copy = directory()
    cpSync(source, copy, { recursive: true })
    truncateSync(join(copy, 'journal.sqlite-wal'), luck.between(0, size))
    seen[expectHonest(copy, journal.journalId)]++
    rmSync(copy, { recursive: true })
  }
  expect(seen.new).toBeGreaterThan(0)
})

test.each([
  ['the database', ['journal.sqlite']],
  ['the WAL', ['journal.sqlite-wal']],
  ['both', ['journal.sqlite', 'journal.sqlite-wal']],
])('a journal that lost %s is a new one', (_, names) => {
  const { folder, journal } = livedIn()
  const copy = killed(folder)
  for (const name of names) rmSync(join(copy, name))
  expect(expectHonest(copy, journal.journalId)).toBe('new')
})

/** As after a proper stop: no WAL is left. */
function atRest(folder: string): string {
  const copy = killed(folder)
  const db = new DatabaseSync(fileIn(copy))
  db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  db.close()
  expect(existsSync(`${fileIn(copy)}-wal`)).toBe(false)
  return copy
}
