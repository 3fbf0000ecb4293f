import { afterAll, beforeAll, expect, test } from 'vitest'
import { createDispatch, type Dispatch } from '../../control/executions/dispatch.ts'
import type { Ledger } from '../../control/executions/ledger.ts'
import type { Session } from '../../control/sessions/sessions.ts'
import type { Transport } from '../../control/transport.ts'
import { silent } from '../support/silent-log.ts'
import { until } from '../support/until.ts'
import { freshExecution } from './support/inputs.ts'
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

let store: Store
let ledger: Ledger
beforeAll(async () => {
  store = await openStore()
  ledger = openLedger(store)
})
afterAll(async () => {
  await ledger.stop()
  await store.stop()
})

const EPOCH = 1

function listeningSession(clientId: string): Session {
  return {
    clientId,
    epoch: EPOCH,
    outlet: { forward: async () => true, close: async () => undefined },
    config: { zones: ['A'], maxInFlight: 8 },
    journalId: null,
    statusSeen: false,
    subscription: 'granted',
    zones: new Set(['A']),
    broadcast: false,
    ending: false,
    forwarded: new Set(),
    inHand: new Map(),
    drained: false,
    room: 0,
    uncertain: false,
  }
}

/** Of a node that has this session and no other. */
const dispatchFor = (session: Session, transport: Partial<Transport> = {}): Dispatch =>
  createDispatch({
    db: store.db,
    log: silent,
    ledger,
    session: () => session,
    sessions: () => [session],
    tell: () => undefined,
    others: () => 0,
    transport: transport as Transport,
  })

// A create whose commit gets no answer is refused as not confirmed, though the command is there: its claims must not stay in hand.
test('a group command that was stored without an answer goes to whom it was claimed for meanwhile', async () => {
  const [clientId] = clientIds(1) as [string]
  const [commandId] = commandIds(1) as [string]
  const state = freshExecution('at_most_once', { expiresAt: Date.now() + 3_600_000 })
  const row: StoredRow = { commandId, clientId, priority: 5, state }
  const session = listeningSession(clientId)
  const published: string[][] = []
  const dispatch = dispatchFor(session, {
    async forwardShared(_target, sessions) {
      published.push(sessions.map((each) => each.clientId))
      return new Set(sessions.map((each) => each.clientId))
    },
  })
  const announced = dispatch.announce(commandId, { kind: 'zone', zone: 'A' }, true)
  await fill(store, [{ id: clientId, epoch: EPOCH, maxInFlight: 8, disabled: false }], [row])
  dispatch.wake(session)
  await until(() => session.inHand.size === 1, 'the claim')
  expect(published).toEqual([])
  announced.settle('unknown')
  await until(() => session.inHand.size === 0, 'the publish')
  expect(published).toEqual([[clientId]])
  expect((await readBack(store, [row]))[0]?.state).toMatchObject({ status: 'queued', epoch: EPOCH })
})

function idleSession(clientId: string): Session {
  return { ...listeningSession(clientId), drained: true, room: 8 }
}

test('while a command for a client is being stored no later one is claimed with its create: it would pass the other', async () => {
  const [clientId] = clientIds(1) as [string]
  const [one, two, three, four] = commandIds(4) as [string, string, string, string]
  const session = idleSession(clientId)
  await fill(store, [{ id: clientId, epoch: EPOCH, maxInFlight: 8, disabled: false }], [])
  const dispatch = dispatchFor(session)
  const target = { kind: 'client' as const, clientId }
  const first = dispatch.announce(one, target, true)
  expect([...first.claims]).toEqual([[clientId, { epoch: EPOCH, journalId: null }]])
  const second = dispatch.announce(two, target, true)
  expect(second.claims.size).toBe(0)
  first.settle('refused')
  await dispatch.idle(session)
  expect(session.inHand.size).toBe(0)
  const third = dispatch.announce(three, target, true)
  expect(third.claims.size).toBe(0)
  const group = dispatch.announce(four, { kind: 'broadcast' }, true)
  expect(group.claims.size).toBe(0)
  for (const { settle } of [second, third, group]) settle('refused')
  const last = dispatch.announce(one, target, true)
  expect(last.claims.size).toBe(1)
  last.settle('unknown')
  await dispatch.idle(session)
  expect(session).toMatchObject({ uncertain: true, room: 8 })
  expect(session.inHand.size).toBe(0)
  expect(dispatch.announce(two, target, true).claims.size).toBe(0)
})

test('a session that was woken while it could not be written to is not taken for idle', () => {
  const session = { ...idleSession('c'), subscription: 'none' as const }
  dispatchFor(session).wake(session)
  expect(session.drained).toBe(false)
})
