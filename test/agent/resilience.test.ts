import { DatabaseSync } from 'node:sqlite'
import { expect, test } from 'vitest'
import { startChild } from './support/child.ts'
import { cancelOf, command, idOf, testClock, until } from './support/fixtures.ts'
import { type Scene, scene } from './support/scene.ts'

const CHILD = new URL('./support/agent-child.ts', import.meta.url)
const finals = (s: Scene): string[] =>
  s.broker.reports.filter(({ status }) => status !== 'running').map((r) => `${Number(r.id.slice(-4))} ${r.status}`)

/** Looks at the journal from outside, as any SQLite tool would. */
function inJournal(s: Scene, n: number): string | undefined {
  const db = new DatabaseSync(s.file, { readOnly: true })
  const row = db.prepare('SELECT state FROM attempts WHERE command_id = ?').get(idOf(n))
  db.close()
  return row?.state as string | undefined
}

test('PUBACKs a command when it is in the journal, not before', async () => {
  await using s = await scene()
  let seen: string | undefined
  s.broker.onPuback = () => {
    seen = inJournal(s, 1)
  }
  await s.broker.toClient('p1', command(1))
  await until(() => expect(s.broker.acks).toBe(1))
  expect(seen).toMatch(/accepted|started/)
})

test('without a journal that can be written there is no PUBACK and no run; a redelivery is taken', async () => {
  await using s = await scene()
  const db = new DatabaseSync(s.file)
  db.exec("CREATE TRIGGER full BEFORE INSERT ON attempts BEGIN SELECT RAISE(ABORT, 'disk full'); END")
  await s.broker.toClient('p1', command(1))
  await until(() => expect(s.log.lines).toContainEqual(expect.objectContaining({ level: 'error' })))
  db.exec('DROP TRIGGER full')
  db.close()
  await s.broker.toClient('p1', command(2))
  // On one connection: whatever was acknowledged was so before this report.
  await s.reported(2, 'running')
  expect(s.broker.acks).toBe(1)
  expect(inJournal(s, 1)).toBeUndefined()
  await s.broker.toClient('p1', command(1))
  ;(await s.run(2)).complete()
  await s.run(1)
})

test('an outcome that cannot be written is kept and reported only when it is', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  const run = await s.run(1)
  const db = new DatabaseSync(s.file)
  db.exec("CREATE TRIGGER full BEFORE UPDATE ON attempts BEGIN SELECT RAISE(ABORT, 'disk full'); END")
  run.complete('kept')
  await until(() => expect(s.log.lines).toContainEqual(expect.objectContaining({ level: 'error' })))
  expect(finals(s)).toEqual([])
  db.exec('DROP TRIGGER full')
  db.close()
  expect(await s.reported(1, 'completed')).toMatchObject({ result: 'kept' })
})

test('outcomes without PUBACK are sent again after a reconnect, in order and once per connection', async () => {
  await using s = await scene({ concurrency: 3 })
  s.broker.holdReports = true
  for (const n of [1, 2, 3]) await s.broker.toClient('p1', command(n))
  for (const n of [3, 1, 2]) {
    const run = await s.run(n)
    run.complete()
    await until(() => expect(inJournal(s, n)).toBe('completed'))
  }
  // The PUBACK of `running` is held, so the outcomes wait behind it.
  expect(finals(s)).toEqual([])
  s.broker.reports.length = 0
  s.broker.cut()
  await until(() => expect(finals(s)).toEqual(['3 completed', '1 completed', '2 completed']))
  s.broker.cut()
  await until(() => expect(finals(s)).toHaveLength(6))
  s.broker.holdReports = false
  s.broker.cut()
  await until(() => expect(finals(s)).toHaveLength(9))
  await s.agent.stop()
  await s.startAgent()
  await s.broker.toClient('p1', command(4))
  await s.run(4)
  expect(finals(s)).toHaveLength(9)
})

test('what ends while there is no connection is reported at the next', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  const run = await s.run(1)
  s.broker.refuse = 3
  s.broker.cut()
  await until(() => expect(s.log.lines).toContainEqual(expect.objectContaining({ level: 'error' })))
  run.complete()
  await until(() => expect(inJournal(s, 1)).toBe('completed'))
  s.broker.refuse = undefined
  await s.reported(1, 'completed')
})

test('a run that began without a connection is told as running when there is one', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  await s.broker.toClient('p1', command(2))
  const first = await s.run(1)
  await until(() => expect(s.broker.acks).toBe(2))
  s.broker.refuse = 3
  s.broker.cut()
  await until(() => expect(s.log.lines.at(-1)?.message).toMatch('refuses'))
  first.complete()
  const second = await s.run(2)
  second.progress({ done: 1 })
  s.broker.refuse = undefined
  expect(await s.reported(2, 'running')).toMatchObject({ progress: { done: 1 } })
})

test('a `running` that was under way when the connection ended is told again', async () => {
  await using s = await scene()
  s.broker.holdReports = true
  await s.broker.toClient('p1', command(1))
  await s.reported(1, 'running')
  s.broker.cut()
  await until(() => expect(s.reports(1)).toHaveLength(2))
  s.broker.holdReports = false
  ;(await s.run(1)).complete()
  await s.reported(1, 'completed')
})

test('a server that leaves a report without PUBACK is connected to anew', async () => {
  await using s = await scene({ ackTimeoutMs: 50 })
  s.broker.holdReports = true
  await s.broker.toClient('p1', command(1))
  ;(await s.run(1)).complete()
  await until(() => expect(s.broker.connections()).toBeGreaterThan(1))
  s.broker.holdReports = false
  await s.reported(1, 'completed')
})

test('bad credentials are logged once and tried again', async () => {
  await using s = await scene()
  const codes: number[] = []
  s.agent.on('refused', (code) => codes.push(code))
  s.broker.refuse = 4
  s.broker.cut()
  await until(() => expect(codes.length).toBeGreaterThan(3))
  s.broker.refuse = undefined
  await until(() => expect(s.broker.connections()).toBe(2))
  const errors = s.log.lines.filter(({ level }) => level === 'error')
  expect(errors.map(({ message }) => message)).toEqual(['The server refuses the connection: bad credentials'])
})

test('while a PUBACK is awaited only the latest progress is kept', async () => {
  await using s = await scene()
  s.broker.holdReports = true
  await s.broker.toClient('p1', command(1))
  const run = await s.run(1)
  for (let done = 1; done <= 100; done++) run.progress({ done, total: 100 })
  s.broker.holdReports = false
  await until(() => expect(s.reports(1).at(-1)?.progress?.done).toBe(100))
  expect(s.reports(1).length).toBeLessThanOrEqual(2)
})

test('a command that waited too long is expired, while another still runs', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  await s.run(1)
  await s.broker.toClient('p1', command(2, { expiresInSeconds: 0.03 }))
  await s.reported(2, 'expired')
  expect(s.runs.map(({ n }) => n)).toEqual([1])
})

test('a deadline holds across a restart of the agent, and a reboot of the device is told', async () => {
  const clock = testClock()
  await using s = await scene({ clock })
  for (const n of [1, 2, 3]) await s.broker.toClient('p1', command(n, { expiresInSeconds: n * 100 }))
  const run = await s.run(1)
  await until(() => expect(s.broker.acks).toBe(3))
  const stopped = s.agent.stop()
  run.complete()
  await stopped
  clock.ms += 250_000
  const busy = { work: () => new Promise<never>(() => {}) }
  const again = await s.startAgent({ handlers: {}, concurrency: 0 })
  await s.reported(2, 'expired')
  await again.stop()
  await s.startAgent({ clock: testClock('boot-2'), handlers: busy })
  expect(await s.reported(3, 'failed')).toMatchObject({ error: { code: 'DEVICE_RESTARTED' } })
})

test('kill -9 in the middle of a run: outcome_unknown, and never run again', async () => {
  await using s = await scene()
  await s.agent.stop()
  await using child = startChild(CHILD, s.broker.url, s.file)
  await child.said('connected')
  await s.broker.toClient('p1', command(1, { action: 'hang' }))
  await child.said('started')
  await child.kill()
  let runs = 0
  await s.startAgent({ handlers: { hang: () => void runs++ } })
  expect(await s.reported(1, 'outcome_unknown')).toMatchObject({ error: { code: 'AGENT_INTERRUPTED' } })
  await s.broker.toClient('p1', command(1, { action: 'hang' }))
  await until(() => expect(finals(s)).toHaveLength(2))
  expect(runs).toBe(0)
})

test('stop lets a run end, starts nothing more, and the process ends by itself', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  await s.broker.toClient('p1', command(2))
  const run = await s.run(1)
  await until(() => expect(s.broker.acks).toBe(2))
  const stopped = s.agent.stop()
  await new Promise((resolve) => setImmediate(resolve))
  expect(run.signal.aborted).toBe(false)
  run.complete()
  await stopped
  expect(finals(s)).toEqual(['1 completed'])
  expect(inJournal(s, 2)).toBe('accepted')
  await s.startAgent()
  await s.run(2)
})

test('a handler that does not stop is left behind and its outcome unknown; nothing keeps the process alive', async () => {
  await using s = await scene()
  await s.agent.stop()
  await using child = startChild(CHILD, s.broker.url, s.file)
  await child.said('connected')
  await s.broker.toClient('p1', command(1, { action: 'hang' }))
  await child.said('started')
  child.tell('stop')
  await child.said('stopped')
  expect(await child.exited).toBe(0)
  expect(inJournal(s, 1)).toBe('started')
  await s.startAgent()
  await s.reported(1, 'outcome_unknown')
})

test('a handler that ends after the stop changes nothing any more', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  const run = await s.run(1)
  await s.agent.stop({ graceMs: 0, abortMs: 0 })
  run.complete()
  await new Promise((resolve) => setImmediate(resolve))
  expect(inJournal(s, 1)).toBe('started')
  expect(s.log.lines.filter(({ level }) => level === 'error')).toEqual([])
})

test('stop aborts what does not end in time, and that is reported', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  const run = await s.run(1)
  run.signal.addEventListener('abort', () => run.fail(run.signal.reason))
  await s.agent.stop({ graceMs: 0 })
  expect(await s.reported(1, 'failed')).toMatchObject({ error: { code: 'AGENT_STOPPED' } })
})

test('priority first, then age; at most `concurrency` at once, priority 10 excepted', async () => {
  await using s = await scene({ concurrency: 2 })
  await s.broker.toClient('p1', command(1))
  await s.broker.toClient('p1', command(2))
  await s.run(2)
  for (const [n, priority] of [
    [3, 1],
    [4, 9],
    [6, 5],
    [5, 5],
  ] as const) {
    await s.broker.toClient('p1', command(n, { priority }))
  }
  await until(() => expect(s.broker.acks).toBe(6))
  expect(s.runs).toHaveLength(2)
  await s.broker.toClient('p1', command(7, { priority: 10 }))
  await s.run(7)
  for (const n of [7, 1, 2, 4, 5, 6]) {
    const run = await s.run(n)
    run.complete()
    await s.reported(n, 'completed')
  }
  await s.run(3)
  expect(s.runs.slice(2).map(({ n }) => n)).toEqual([7, 4, 5, 6, 3])
})

test('a newer attempt waits for the older one and shares its completion', async () => {
  await using s = await scene({ concurrency: 4 })
  await s.broker.toClient('p1', command(1))
  const run = await s.run(1)
  await s.broker.toClient('p1', command(1, { attempt: 2 }))
  await s.broker.toClient('p1', cancelOf(9))
  await s.reported(9, 'outcome_unknown')
  expect(s.runs).toHaveLength(1)
  run.complete('once')
  await until(() => expect(finals(s).filter((text) => text === '1 completed')).toHaveLength(2))
  expect(s.reports(1).at(-1)).toMatchObject({ attempt: 2, result: 'once' })
  expect(s.runs).toHaveLength(1)
  expect(s.log.lines.filter(({ level }) => level === 'error')).toEqual([])
})

test('an agent without a server stops at once, and one that stopped can start again', async () => {
  await using s = await scene()
  const url = s.broker.url
  await s.broker.toClient('p1', command(1))
  ;(await s.run(1)).complete()
  await s.agent.stop()
  const alone = await s.startAgent({ url: url.replace(/:\d+$/, ':1'), journal: ':memory:' }, { connected: false })
  await until(() => expect(s.log.lines.at(-1)?.message).toBe('Could not connect'))
  await alone.stop()
  expect(alone.journalId).toBeUndefined()
  const connected = new Promise<void>((resolve) => s.agent.once('connected', resolve))
  await s.agent.start()
  await connected
  await s.reported(1, 'completed')
  expect(s.broker.statuses.at(-1)).toMatchObject({ journalId: s.agent.journalId })
})

test('the status can be published again, and a status() that fails does no harm', async () => {
  let fields: () => object = () => ({ printers: 1 })
  await using s = await scene({ status: () => fields() })
  fields = () => ({ printers: 2, state: 'offline', journalId: 'x' })
  await s.agent.publishStatus()
  expect(s.broker.statuses.at(-1)).toEqual({ state: 'online', journalId: s.agent.journalId, printers: 2 })
  fields = () => {
    throw new Error('no printer')
  }
  await s.agent.publishStatus()
  expect(s.broker.statuses.at(-1)).toEqual({ state: 'online', journalId: s.agent.journalId })
})
