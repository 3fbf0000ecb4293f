import { readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, onTestFinished, test } from 'vitest'
import { Journal, type JournalOptions } from '../../agent/journal.ts'
import { startChild } from './support/child.ts'
import { cancelOf, command, idOf, temporaryDirectory, testClock, testLog } from './support/fixtures.ts'

const CHILD = new URL('./support/journal-child.ts', import.meta.url)
const key = (n: number, attempt = 1) => ({ id: idOf(n), attempt })

function fileOf(): string {
  const directory = temporaryDirectory()
  onTestFinished(() => directory[Symbol.dispose]())
  return directory.file('journal.sqlite')
}

/** Opens the journal, and closes it if the test does not. */
function open(file: string, options: Partial<JournalOptions> = {}): Journal & { shut: () => void } {
  const journal = new Journal({ file, ...options })
  let closed = false
  const shut = (): void => {
    if (!closed) journal.close()
    closed = true
  }
  onTestFinished(shut)
  return Object.assign(journal, { shut })
}

const states = (journal: Journal, n: number) => journal.attempts(idOf(n)).map(({ state }) => state)

/** Runs command `n` to its acknowledged outcome. */
function settle(journal: Journal, n: number): void {
  journal.received(command(n))
  journal.started(key(n))
  journal.finished(key(n), { status: 'completed' })
  journal.acknowledged(key(n))
}

test('a new file has a journalId of its own and keeps it', () => {
  const file = fileOf()
  const first = open(file)
  const { journalId } = first
  first.shut()
  expect(open(file).journalId).toBe(journalId)
  expect(open(fileOf()).journalId).not.toBe(journalId)
  expect(open(':memory:').journalId).not.toBe(open(':memory:').journalId)
})

test('a command, its outcome and what is to be reported survive a new start', () => {
  const file = fileOf()
  const before = open(file)
  before.received(command(1, { payload: { text: '한글' } }))
  before.received(command(2))
  expect(before.started(key(1))).toEqual(command(1, { payload: { text: '한글' } }))
  const error = { code: 'JAM', message: 'paper jam' }
  before.finished(key(1), { status: 'failed', error }, { done: 1, total: 2 })
  before.shut()
  const after = open(file)
  expect(after.unreported()).toEqual([key(1)])
  expect(after.report(key(1))).toMatchObject({ status: 'failed', attempt: 1, error, progress: { done: 1, total: 2 } })
  expect(after.ready()).toMatchObject([{ ...key(2), action: 'work', priority: 5 }])
  after.acknowledged(key(1))
  expect(after.unreported()).toEqual([])
  expect(after.report(key(1))).toBeUndefined()
})

test('outcomes are reported in the order they came about', () => {
  const journal = open(fileOf())
  for (const n of [1, 2, 3]) journal.received(command(n))
  for (const n of [2, 3, 1]) journal.gaveUp(key(n), { status: 'expired' })
  expect(journal.unreported()).toEqual([key(2), key(3), key(1)])
})

test('the tombstone of a cancel keeps its command from ever running', () => {
  const journal = open(fileOf())
  journal.cancelled(cancelOf(1, { journalId: journal.journalId }))
  journal.received(command(1))
  expect(journal.ready()).toEqual([])
  expect(journal.report(key(1))).toMatchObject({ status: 'cancelled' })
})

test('a step that fails leaves nothing behind', () => {
  const journal = open(fileOf())
  journal.received(command(1))
  expect(() => journal.started(key(1, 2))).toThrow()
  expect(() => journal.finished(key(1), { status: 'completed' })).toThrow()
  expect(states(journal, 1)).toEqual(['accepted'])
})

test('a step that fails in the middle of its writes is undone', () => {
  const file = fileOf()
  const journal = open(file)
  journal.received(command(1))
  const db = new DatabaseSync(file)
  db.exec(
    "CREATE TRIGGER full BEFORE INSERT ON attempts WHEN new.attempt = 2 BEGIN SELECT RAISE(ABORT, 'disk full'); END",
  )
  expect(() => journal.received(command(1, { attempt: 2 }))).toThrow('disk full')
  db.exec('DROP TRIGGER full')
  db.close()
  expect(states(journal, 1)).toEqual(['accepted'])
  journal.received(command(1, { attempt: 2 }))
  expect(states(journal, 1)).toEqual(['superseded', 'accepted'])
})

const STEPS = ['received', 'started', 'finished', 'acknowledged']
test.each([
  [0, [], [], []],
  [1, ['accepted'], ['accepted'], []],
  [2, ['started'], ['outcome_unknown'], [key(1)]],
  [3, ['completed'], ['completed'], [key(1)]],
  [4, ['completed'], ['completed'], []],
])('after kill -9 behind step %i the journal has it', async (count, left, recovered, unreported) => {
  const file = fileOf()
  await using child = startChild(CHILD, file)
  await child.said('ready')
  for (const step of STEPS.slice(0, count)) {
    child.tell(step)
    await child.said(step)
  }
  await child.kill()
  const journal = open(file)
  expect(states(journal, 1)).toEqual(left)
  journal.recover()
  expect(states(journal, 1)).toEqual(recovered)
  expect(journal.unreported()).toEqual(unreported)
})

test('one process at a time, and none after kill -9', async () => {
  const file = fileOf()
  await using child = startChild(CHILD, file)
  await child.said('ready')
  expect(() => open(file)).toThrow('in use by another process')
  const reader = new DatabaseSync(file, { readOnly: true })
  expect(reader.prepare('SELECT count(*) AS n FROM attempts').get()).toEqual({ n: 0 })
  reader.close()
  await child.kill()
  open(file)
})

test.each([
  ['is garbage', (file: string) => writeFileSync(file, 'no database '.repeat(1000))],
  ['was cut', (file: string) => truncateSync(file, 9000)],
  ['has a torn page', (file: string) => writeFileSync(file, torn(readFileSync(file)))],
])('a file that %s is set aside, and a new journal begins', (_, damage) => {
  const file = fileOf()
  const first = open(file)
  const { journalId } = first
  for (let n = 1; n <= 50; n++) first.received(command(n))
  first.shut()
  damage(file)
  const log = testLog()
  const second = open(file, { log })
  expect(second.journalId).not.toBe(journalId)
  expect(second.ready()).toEqual([])
  const files = readdirSync(file.slice(0, -basename(file).length))
  expect(files.filter((name) => name.startsWith('journal.sqlite.corrupt-'))).not.toEqual([])
  expect(log.lines).toMatchObject([{ level: 'error', fields: { file } }])
})

function torn(bytes: Buffer): Buffer {
  return Buffer.concat([bytes.subarray(0, 8192), Buffer.alloc(4096, 0xa5), bytes.subarray(12_288)])
}

test('a database that is no journal is left alone', () => {
  const file = fileOf()
  const other = new DatabaseSync(file)
  other.exec('CREATE TABLE orders (id INTEGER)')
  other.close()
  expect(() => open(file)).toThrow('no journal')
  const again = new DatabaseSync(file)
  expect(again.prepare('SELECT count(*) AS n FROM orders').get()).toEqual({ n: 0 })
  again.close()
})

test('deadlines go on counting across a restart of the process', () => {
  const file = fileOf()
  const before = open(file, { clock: testClock('boot-1', 5000) })
  before.received(command(1, { expiresInSeconds: 60 }))
  before.shut()
  const after = open(file, { clock: testClock('boot-1', 20_000) })
  expect(after.recover()).toEqual({ interrupted: 0, neverStarted: 0 })
  expect(after.ready()).toMatchObject([{ deadline: 65_000 }])
})

test.each([
  ['another boot', testClock('boot-2', 50_000)],
  ['a clock that went back, so another boot in truth', testClock('boot-1', 1)],
])('after %s what never started has failed, and says so', (_, clock) => {
  const file = fileOf()
  const before = open(file, { clock: testClock('boot-1', 5000) })
  for (const n of [1, 2]) before.received(command(n))
  before.started(key(2))
  before.shut()
  const after = open(file, { clock })
  expect(after.recover()).toEqual({ interrupted: 1, neverStarted: 1 })
  expect(after.report(key(1))).toMatchObject({
    status: 'failed',
    error: { code: 'DEVICE_RESTARTED', message: expect.stringContaining('never started') },
  })
  expect(after.report(key(2))).toMatchObject({ status: 'outcome_unknown' })
})

test('after a reboot an unstarted attempt does not deny what an older one may have done', () => {
  const file = fileOf()
  const before = open(file, { clock: testClock('boot-1') })
  before.received(command(1))
  before.started(key(1))
  before.received(command(1, { attempt: 2 }))
  before.shut()
  const after = open(file, { clock: testClock('boot-2') })
  after.recover()
  expect(states(after, 1)).toEqual(['outcome_unknown', 'outcome_unknown'])
})

test('forgets what was acknowledged long ago, and nothing else', () => {
  const journal = open(fileOf())
  settle(journal, 1)
  journal.received(command(2))
  journal.received(command(3))
  journal.gaveUp(key(3), { status: 'expired' })
  journal.cancelled(cancelOf(4, { journalId: 'another' }))
  journal.acknowledged(key(4))
  journal.prune(new Date(Date.now() - 1000))
  expect(states(journal, 1)).toEqual(['completed'])
  journal.prune(new Date(Date.now() + 1000))
  expect([1, 2, 3, 4].map((n) => states(journal, n))).toEqual([[], ['accepted'], ['expired'], ['outcome_unknown']])
})

test('at the start it forgets what is older than its retention', () => {
  const file = fileOf()
  const before = open(file)
  settle(before, 1)
  before.shut()
  expect(states(open(file, { retentionDays: -1 }), 1)).toEqual([])
})
