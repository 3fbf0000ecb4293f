import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Context, EventDraft } from '../../control/executions/endings.ts'
import type { Applied, ClaimingSession, Ledger } from '../../control/executions/ledger.ts'
import { type Input, transition } from '../../control/executions/lifecycle.ts'
import { storeExecutions } from '../../db/execution-changes.ts'
import type { ExecutionKey, ExecutionState } from '../../db/executions.ts'
import { until } from '../support/until.ts'
import { BACKOFF, claim, delivery, freshExecution, named, sessionEnded, sessionReady } from './support/inputs.ts'
import {
  clientIds,
  commandIds,
  fill,
  openLedger,
  openStore,
  readBack,
  type Store,
  type StoredRow,
} from './support/store.ts'

// What goes through the ledger, many at once, leaves in PostgreSQL exactly what the pure rules make of it, one after the other.

/** All times of the rows are hours away from now: PostgreSQL's clock decides, and it is known how. */
const HOUR = 3_600_000
const started = Date.now()
const PAST = started - HOUR
const FUTURE = started + 24 * HOUR
/** The current session of every client; inputs come from the sessions before and after it too. */
const EPOCH = 2
const CLIENTS = 3

interface Job {
  input: Input
  /** By its name, for a claim, or for everything that is open. */
  as: 'named' | 'claim' | 'open'
  target: number
  /** An input for everything open may need the current session. */
  guarded: boolean
}

const job: fc.Arbitrary<Job> = fc
  .oneof(
    { weight: 5, arbitrary: fc.record({ as: fc.constant('named' as const), input: named }) },
    { weight: 2, arbitrary: fc.record({ as: fc.constant('claim' as const), input: claim }) },
    {
      weight: 2,
      arbitrary: fc.record({ as: fc.constant('open' as const), input: fc.oneof(sessionReady, sessionEnded) }),
    },
  )
  .chain((chosen) =>
    fc.record({
      as: fc.constant(chosen.as),
      input: fc.constant<Input>(chosen.input),
      target: fc.nat(20),
      guarded: fc.boolean(),
    }),
  )

const row = fc.record({
  client: fc.nat(CLIENTS - 1),
  priority: fc.constantFrom(1, 5, 10),
  delivery,
  given: fc.record({
    startTimeoutSeconds: fc.constantFrom(0, 3600),
    timeoutSeconds: fc.constantFrom(0, 3600),
    expiresAt: fc.constantFrom(PAST, FUTURE, FUTURE),
    notBefore: fc.constantFrom(null, null, null, PAST, FUTURE),
  }),
})
const rows = fc.array(row, { minLength: 4, maxLength: 8 })
/** Each inner list is given at once. */
const bursts = fc.array(fc.array(job, { minLength: 1, maxLength: 12 }), { minLength: 2, maxLength: 8 })

interface Link {
  commandId: string
  before: ExecutionState
  after: ExecutionState
}

let store: Store
const ledgers: Ledger[] = []
/** What the ledgers stored, since the last `fill`. */
const changes: Link[] = []

beforeAll(async () => {
  store = await openStore()
  for (let node = 0; node < 2; node++) {
    const ledger = openLedger(store)
    ledger.onChange(({ commandId }, before, after) => changes.push({ commandId, before, after }))
    ledgers.push(ledger)
  }
})
afterAll(async () => {
  for (const ledger of ledgers) await ledger.stop()
  await store.stop()
})

/** One input that reached one execution, as the ledger tells of it. */
interface Told {
  commandId: string
  input: Input
  now: number
  before: ExecutionState | undefined
  after: ExecutionState
}

const sessionOf = (clientId: string, input: Input): ClaimingSession => ({
  clientId,
  epoch: 'epoch' in input ? input.epoch : EPOCH,
  journalId: 'journalId' in input ? input.journalId : null,
  uncertain: false,
  isOnItsWay: () => true,
})

/** Gives a job to the ledger; answers what became of it, once that is committed. */
async function give(ledger: Ledger, { as, input, target, guarded }: Job, all: StoredRow[]): Promise<Told[]> {
  const chosen = all[target % all.length] as StoredRow
  const toTold = (key: ExecutionKey, applied: Applied): Told => ({ commandId: key.commandId, input, ...applied })
  if (as === 'named') {
    const applied = await ledger.apply(chosen, input)
    return applied ? [toTold(chosen, applied)] : []
  }
  const session = sessionOf(chosen.clientId, input)
  if (as === 'open') {
    const open = await ledger.applyToOpen(chosen.clientId, input, guarded ? session : null)
    return open.map((applied) => toTold(applied, applied))
  }
  const claimed = await ledger.claim(session)
  return claimed.map(({ commandId, state, now }) => ({ commandId, input, now, before: undefined, after: state }))
}

const contextAt = (now: number): Context => ({ now, backoff: BACKOFF, random: () => 0.5 })

async function begin(
  given: { client: number; priority: number; delivery: ExecutionState['delivery']; given: object }[],
) {
  const ids = clientIds(CLIENTS)
  const commands = commandIds(given.length)
  const all = given.map(
    (each, index): StoredRow => ({
      commandId: commands[index] as string,
      clientId: ids[each.client] as string,
      priority: each.priority,
      state: freshExecution(each.delivery, each.given),
    }),
  )
  await fill(
    store,
    ids.map((id) => ({ id, epoch: EPOCH, maxInFlight: 2, disabled: false })),
    all,
  )
  changes.length = 0
  return all
}

async function eventsOf(commandId: string): Promise<EventDraft[]> {
  const found = await store.query<{ type: EventDraft['type']; attempt: number; data: EventDraft['data'] }>(
    'select type, attempt, data from events where command_id = $1 order by id',
    [commandId],
  )
  return found.map(({ type, attempt, data }) => ({ type, attempt, data }))
}

test('given many at once, the inputs of each client leave what the rules make of them in that order: state, events and version', async () => {
  let moved = 0
  await fc.assert(
    fc.asyncProperty(rows, bursts, async (given, plan) => {
      const all = await begin(given)
      const [ledger] = ledgers as [Ledger]
      const told: Told[] = []
      for (const burst of plan) {
        // Answers come in any order; what counts is the order in which they were given.
        told.push(...(await Promise.all(burst.map((each) => give(ledger, each, all)))).flat())
      }
      const found = await readBack(store, all)
      for (const [index, { commandId, state: fresh }] of all.entries()) {
        let state = fresh
        const drafts: EventDraft[] = []
        for (const { input, now, before, after } of told.filter((each) => each.commandId === commandId)) {
          expect(before ?? state).toEqual(state)
          const made = transition(state, input, contextAt(now))
          expect(after).toEqual(made.state)
          drafts.push(...made.events)
          state = made.state
        }
        const stored = changes.filter((change) => change.commandId === commandId)
        expect(found[index]?.state).toEqual(state)
        expect(await eventsOf(commandId)).toEqual(JSON.parse(JSON.stringify(drafts)))
        expect(found[index]?.version).toBe(stored.length)
        moved += stored.length
      }
    }),
    { numRuns: 40 },
  )
  expect(moved).toBeGreaterThan(100)
}, 120_000)

test('two ledgers over the same executions: every stored change follows from the one before, and none is lost', async () => {
  let raced = 0
  await fc.assert(
    fc.asyncProperty(rows, bursts, async (given, plan) => {
      const all = await begin(given)
      for (const burst of plan) {
        const told = await Promise.all(burst.map((each, index) => give(ledgers[index % 2] as Ledger, each, all)))
        for (const { input, now, before, after } of told.flat()) {
          if (before) expect(after).toEqual(transition(before, input, contextAt(now)).state)
        }
      }
      const found = await readBack(store, all)
      for (const [index, { commandId, state }] of all.entries()) {
        const links = changes.filter((change) => change.commandId === commandId)
        const end = found[index] as { state: ExecutionState; version: number }
        expect(end.version).toBe(links.length)
        expect(isChain(state, links, end.state)).toBe(true)
        raced += links.length
      }
    }),
    { numRuns: 25 },
  )
  expect(raced).toBeGreaterThan(50)
}, 120_000)

/** Whether all links, in some order, lead from one state to the other. */
function isChain(from: ExecutionState, links: Link[], to: ExecutionState): boolean {
  if (links.length === 0) return isDeepStrictEqual(from, to)
  return links.some(
    ({ before, after }, index) => isDeepStrictEqual(before, from) && isChain(after, links.toSpliced(index, 1), to),
  )
}

test('a change of a row that somebody else has changed is not stored, nor are its events', async () => {
  const [one] = (await begin([{ client: 0, priority: 5, delivery: 'at_most_once', given: { expiresAt: FUTURE } }])) as [
    StoredRow,
  ]
  const change = {
    ...one,
    version: 0,
    before: one.state,
    guardEpoch: null,
    events: [{ type: 'execution.released' as const, attempt: 1, data: {} }],
  }
  expect(await storeExecutions(store.db, [change])).toHaveLength(1)
  expect(await storeExecutions(store.db, [change])).toEqual([])
  expect((await readBack(store, [one]))[0]?.version).toBe(1)
  expect(await eventsOf(one.commandId)).toHaveLength(1)
})

test('a change that needs another session than the current one is not stored, and the others of its statement are', async () => {
  const kind = { client: 0, priority: 5, delivery: 'at_most_once' as const, given: { expiresAt: FUTURE } }
  const [one, two] = (await begin([kind, kind])) as [StoredRow, StoredRow]
  const event = { type: 'execution.released' as const, attempt: 1, data: {} }
  const stored = await storeExecutions(store.db, [
    { ...one, version: 0, before: one.state, guardEpoch: EPOCH + 1, events: [event] },
    { ...two, version: 0, before: two.state, guardEpoch: EPOCH, events: [event] },
  ])
  expect(stored.map(({ commandId }) => commandId)).toEqual([two.commandId])
  expect(await eventsOf(one.commandId)).toEqual([])
})

test('a session that is not the current one claims nothing, and what it brings up is not stored', async () => {
  const kind = { client: 0, priority: 5, delivery: 'at_least_once' as const, given: { expiresAt: FUTURE } }
  const [one, two] = (await begin([kind, kind])) as [StoredRow, StoredRow]
  const [ledger] = ledgers as [Ledger]
  const ready = (epoch: number): Input => ({ type: 'session-ready', epoch, journalId: null, statusSeen: true })
  const old = { type: 'claim', epoch: EPOCH - 1, journalId: null } as const
  expect(await ledger.claim(sessionOf(one.clientId, old))).toEqual([])
  const claimed = await ledger.claim(sessionOf(one.clientId, { ...old, epoch: EPOCH }))
  expect(claimed.map(({ commandId }) => commandId)).toEqual([one.commandId, two.commandId])
  await store.query('update clients set session_epoch = $1', [EPOCH + 2])
  const late = ready(EPOCH + 1)
  expect(await ledger.applyToOpen(one.clientId, late, sessionOf(one.clientId, late))).toEqual([])
  const next = ready(EPOCH + 2)
  const open = await ledger.applyToOpen(one.clientId, next, sessionOf(one.clientId, next))
  expect(open.map(({ effect }) => effect)).toEqual(['send-command', 'send-command'])
  expect((await readBack(store, [one, two])).map(({ state }) => state.epoch)).toEqual([EPOCH + 2, EPOCH + 2])
})

test('an input that was judged by a change that is not stored is judged again', async () => {
  const kind = { client: 0, priority: 5, delivery: 'at_least_once' as const, given: { expiresAt: FUTURE } }
  const [one] = (await begin([kind])) as [StoredRow]
  const [ledger] = ledgers as [Ledger]
  await ledger.claim(sessionOf(one.clientId, { type: 'claim', epoch: EPOCH, journalId: null }))
  // In one round: a session that is not the current one takes the claim over, which is not stored, and its owner releases it.
  const stale: Input = { type: 'session-ready', epoch: EPOCH + 1, journalId: null, statusSeen: true }
  const [open, released] = await Promise.all([
    ledger.applyToOpen(one.clientId, stale, sessionOf(one.clientId, stale)),
    ledger.apply(one, { type: 'release', epoch: EPOCH, attempt: 1 }),
  ])
  expect(open).toEqual([])
  expect(released?.after.status).toBe('pending')
  expect((await readBack(store, [one]))[0]?.state).toEqual(one.state)
})

test('what a session brings up is told once, though some of it had to be decided again', async () => {
  const kind = { client: 0, priority: 5, delivery: 'at_least_once' as const, given: { expiresAt: FUTURE } }
  const [one, two] = (await begin([kind, kind])) as [StoredRow, StoredRow]
  const [ledger] = ledgers as [Ledger]
  await ledger.claim(sessionOf(one.clientId, { type: 'claim', epoch: EPOCH, journalId: null }))
  await store.query('update clients set session_epoch = $1', [EPOCH + 1])
  const somebody = new pg.Client({ connectionString: store.url })
  await somebody.connect()
  await somebody.query('begin')
  await somebody.query('update executions set version = version + 1 where command_id = $1', [two.commandId])
  const ready: Input = { type: 'session-ready', epoch: EPOCH + 1, journalId: null, statusSeen: true }
  const session = { ...sessionOf(one.clientId, ready), isOnItsWay: () => false }
  const open = ledger.applyToOpen(one.clientId, ready, session)
  const waiting = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  await until(async () => (await store.query(waiting)).length > 0, 'the ledger to wait for the row')
  await somebody.query('commit')
  await somebody.end()
  const told = (await open).map(({ commandId, effect }) => ({ commandId, effect }))
  expect(told).toEqual([one, two].map(({ commandId }) => ({ commandId, effect: 'send-command' })))
})

test('what another node has stored counts, also where that of this node would not have moved', async () => {
  const kind = { client: 0, priority: 5, delivery: 'at_most_once' as const, given: { expiresAt: FUTURE } }
  const [one] = (await begin([kind])) as [StoredRow]
  const [here, there] = ledgers as [Ledger, Ledger]
  await here.claim(sessionOf(one.clientId, { type: 'claim', epoch: EPOCH, journalId: null }))
  await here.apply(one, { type: 'puback', epoch: EPOCH, attempt: 1 })
  await there.apply(one, { type: 'report', report: { status: 'outcome_unknown', attempt: 1 }, journalId: null })
  const resolved = await here.apply(one, { type: 'resolve', outcome: 'completed', note: 'seen' })
  expect([resolved?.before.status, resolved?.after.status]).toEqual(['outcome_unknown', 'completed'])
  expect((await readBack(store, [one]))[0]?.state.status).toBe('completed')
})
