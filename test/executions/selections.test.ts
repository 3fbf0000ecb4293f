import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Input, transition } from '../../control/executions/lifecycle.ts'
import { inFlight } from '../../control/executions/states.ts'
import { listQueue } from '../../db/clients.ts'
import { type ExecutionState, findUnsettledOfDeleted, loadClaimable, loadOpenExecutions } from '../../db/executions.ts'
import { findDueExecutions, findNeglectedSessions, findOrphanedClaims } from '../../db/overdue-executions.ts'
import { isSettled } from '../../schemas/executions.ts'
import { BACKOFF, beginning, delivery, freshExecution, run } from './support/inputs.ts'
import {
  clientIds,
  commandIds,
  fill,
  openStore,
  readBack,
  type Store,
  type StoredClient,
  type StoredRow,
} from './support/store.ts'

// What SQL selects, and what the rules would move: two ways of saying the same, compared on whatever rows can come about.

const HOUR = 3_600_000
const DAY = 24 * HOUR
/** Every time of a row lies hours away from now, on either side: PostgreSQL's clock and this one agree about all of them. */
const now = Date.now()
const PAST = now - HOUR
const FUTURE = now + 20 * DAY

const seconds = fc.constantFrom(1, 2_000_000)
const row = fc.record({
  client: fc.nat(2),
  priority: fc.constantFrom(1, 5, 9, 10),
  delivery,
  given: fc.record({
    startTimeoutSeconds: seconds,
    timeoutSeconds: seconds,
    expiresAt: fc.constantFrom(PAST, FUTURE, FUTURE),
    notBefore: fc.constantFrom(null, null, null, null, PAST, FUTURE),
  }),
  steps: beginning,
})
const client = fc.record({
  epoch: fc.option(fc.integer({ min: 1, max: 3 }), { freq: 4 }),
  maxInFlight: fc.constantFrom(0, 1, 2, 8),
  disabled: fc.constantFrom(false, false, false, false, true),
})
const world = fc.record({
  clients: fc.array(client, { minLength: 3, maxLength: 3 }),
  rows: fc.array(row, { minLength: 10, maxLength: 25 }),
})

let store: Store
beforeAll(async () => {
  store = await openStore()
})
afterAll(() => store.stop())

/** Fills the tables with what a day-old history has made of each row, then compares. `holds` answers how many rows were selected. */
async function compare(holds: (clients: StoredClient[], rows: StoredRow[]) => Promise<number>): Promise<void> {
  let selected = 0
  await fc.assert(
    fc.asyncProperty(world, async (given) => {
      const ids = clientIds(given.clients.length)
      const clients = given.clients.map((each, index) => ({ ...each, id: ids[index] as string }))
      const commands = commandIds(given.rows.length)
      const rows = given.rows.map((each, index) => ({
        commandId: commands[index] as string,
        clientId: ids[each.client] as string,
        priority: each.priority,
        state: run(freshExecution(each.delivery, each.given), each.steps, now - DAY).end,
      }))
      await fill(store, clients, rows)
      selected += await holds(clients, rows)
    }),
    { numRuns: 60 },
  )
  // Nothing is shown by comparing nothing.
  expect(selected).toBeGreaterThan(10)
}

/** Whether the rules do anything with that input: move it, or have something to be sent. */
function matters(state: ExecutionState, input: Input): boolean {
  const made = transition(state, input, { now, backoff: BACKOFF, random: () => 0.5 })
  return made.state !== state || made.events.length > 0 || made.effect !== undefined
}

const keys = (found: { commandId: string }[]): string[] => found.map(({ commandId }) => commandId).sort()
const ofClient = (rows: StoredRow[], { id }: StoredClient) => rows.filter(({ clientId }) => clientId === id)

test('whatever state there can be is stored and read back as it is', async () => {
  await compare(async (_clients, rows) => {
    const found = await readBack(store, rows)
    expect(found.map(({ state }) => state)).toEqual(rows.map(({ state }) => state))
    expect(found.every(({ version }) => version === 0)).toBe(true)
    return found.length
  })
}, 120_000)

test('loadClaimable selects what a claim would move, inside the window, most urgent first', async () => {
  await compare(async (clients, rows) => {
    const sessions = clients.map(({ id, epoch }) => ({ clientId: id, epoch: epoch ?? 1, uncertain: false }))
    const { items } = await loadClaimable(store.db, sessions)
    for (const each of clients) {
      const own = ofClient(rows, each)
      const claim: Input = { type: 'claim', epoch: each.epoch ?? 1, journalId: null }
      const claimable = own
        .filter(({ state }) => matters(state, claim))
        .sort((a, b) => b.priority - a.priority || (a.commandId < b.commandId ? -1 : 1))
      const room = Math.max(0, each.maxInFlight - own.filter(({ state }) => inFlight(state.status)).length)
      const urgent = claimable.filter(({ priority }) => priority === 10)
      const expected = [...urgent, ...claimable.filter(({ priority }) => priority < 10).slice(0, room)]
      const mayClaim = each.epoch !== null && !each.disabled
      const found = items.filter(({ clientId }) => clientId === each.id)
      expect(found.map(({ commandId }) => commandId)).toEqual(
        mayClaim ? expected.map(({ commandId }) => commandId) : [],
      )
    }
    return items.length
  })
}, 120_000)

test('an uncertain session also finds what it has queued itself, and no other epoch finds anything', async () => {
  await compare(async (clients, rows) => {
    const sessions = clients.map(({ id, epoch }) => ({ clientId: id, epoch: epoch ?? 1, uncertain: true }))
    const certain = await loadClaimable(
      store.db,
      sessions.map((session) => ({ ...session, uncertain: false })),
    )
    const { items } = await loadClaimable(store.db, sessions)
    const usable = new Map(
      clients.filter(({ epoch, disabled }) => epoch !== null && !disabled).map((one) => [one.id, one.epoch]),
    )
    const queued = rows.filter(
      ({ clientId, state }) => state.status === 'queued' && state.epoch === usable.get(clientId),
    )
    expect(keys(items)).toEqual([...keys(certain.items), ...keys(queued)].sort())
    const stale = sessions.map((session) => ({ ...session, epoch: session.epoch + 10 }))
    expect((await loadClaimable(store.db, stale)).items).toEqual([])
    return queued.length
  })
}, 120_000)

test('findDueExecutions selects what time would move, and says by which input', async () => {
  await compare(async (_clients, rows) => {
    const found = await findDueExecutions(store.db, 1000)
    const whys = (['expire', 'timeout', 'due'] as const).flatMap((why) =>
      rows.filter(({ state }) => matters(state, { type: why })).map(({ commandId }) => `${commandId} ${why}`),
    )
    expect(found.map(({ key, why }) => `${key.commandId} ${why}`).sort()).toEqual(whys.sort())
    return found.length
  })
}, 120_000)

test('findOrphanedClaims selects what the end of a session would settle that is no longer the current one', async () => {
  await compare(async (clients, rows) => {
    const current = new Map(clients.map(({ id, epoch }) => [id, epoch]))
    const expected = rows.filter(
      ({ clientId, state }) =>
        state.epoch !== null &&
        state.epoch !== current.get(clientId) &&
        matters(state, { type: 'session-ended', epoch: state.epoch }),
    )
    const found = await findOrphanedClaims(store.db, 1000)
    expect(keys(found)).toEqual(keys(expected))
    for (const { commandId, epoch } of found)
      expect(epoch).toBe(rows.find((each) => each.commandId === commandId)?.state.epoch)
    return found.length
  })
}, 120_000)

test('loadOpenExecutions selects all that a session could bring up or end, and nothing that is pending or terminal', async () => {
  const sessions: Input[] = [1, 2, 3, 4].flatMap((epoch): Input[] => [
    { type: 'session-ended', epoch },
    ...[null, 'a', 'b', 'c'].map((journalId): Input => ({ type: 'session-ready', epoch, journalId, statusSeen: true })),
  ])
  await compare(async (clients, rows) => {
    const { items } = await loadOpenExecutions(
      store.db,
      clients.map(({ id }) => id),
    )
    const found = keys(items)
    for (const { commandId, state } of rows) {
      if (sessions.some((input) => matters(state, input))) expect(found).toContain(commandId)
      expect(found.includes(commandId)).toBe(inFlight(state.status) || state.status === 'outcome_unknown')
    }
    return found.length
  })
}, 120_000)

test('findNeglectedSessions names every session with something to claim, and every one with a successor', async () => {
  await compare(async (clients, rows) => {
    const sessions = clients.map(({ id, epoch }) => ({ clientId: id, epoch: epoch ?? 1 }))
    const found = await findNeglectedSessions(store.db, sessions)
    for (const each of clients) {
      const one = found.find(({ clientId }) => clientId === each.id)
      const claim: Input = { type: 'claim', epoch: each.epoch ?? 1, journalId: null }
      if (ofClient(rows, each).some(({ state }) => matters(state, claim))) expect(one).toBeDefined()
      expect(one?.superseded ?? false).toBe(each.epoch === null)
    }
    return found.length
  })
}, 120_000)

test('what a deleted client leaves is what an abandon would settle; a queue is what is not settled', async () => {
  await compare(async (clients, rows) => {
    for (const each of clients) {
      const own = ofClient(rows, each)
      expect(keys(await listQueue(store.db, each.id, 1000))).toEqual(
        keys(own.filter(({ state }) => !isSettled(state.status))),
      )
    }
    await store.query('update clients set deleted_at = clock_timestamp()')
    const expected = rows.filter(({ state }) => matters(state, { type: 'abandon' }))
    expect(keys(await findUnsettledOfDeleted(store.db, null, 1000))).toEqual(keys(expected))
    return expected.length
  })
}, 120_000)
