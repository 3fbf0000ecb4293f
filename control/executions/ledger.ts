import type { Logger } from 'pino'
import type { Db } from '../../db/connect.ts'
import { storeExecutions } from '../../db/execution-changes.ts'
import {
  type Claimable,
  type ExecutionKey,
  type ExecutionState,
  type Loaded,
  loadClaimable,
  loadExecutions,
  loadOpenExecutions,
  type StoredExecution,
} from '../../db/executions.ts'
import type { EarlyClaim } from '../../db/new-commands.ts'
import { type Batcher, createBatcher, type WhenDown } from '../batcher.ts'
import type { DatabaseClock } from '../database-clock.ts'
import type { Metrics } from '../metrics/metrics.ts'
import type { Context, Effect, EventDraft } from './endings.ts'
import { createHeld, type Held, keyOf } from './held.ts'
import { type Input, transition } from './lifecycle.ts'

/** What one input did to one execution. */
export interface Applied {
  before: ExecutionState
  after: ExecutionState
  effect: Effect | undefined
  /** PostgreSQL's clock at the decision, ms. */
  now: number
}

/** A session as far as the ledger needs it. */
export interface ClaimingSession {
  clientId: string
  epoch: number
  journalId: string | null
  /** The last claim or write went wrong: look for claims that were left over. */
  uncertain: boolean
  /** Whether this attempt was written to the socket, or is about to be. */
  isOnItsWay(commandId: string, attempt: number): boolean
}

/** A new execution, and what its command's message carries. */
export type NewWork = Omit<Claimable, 'epoch' | 'room'>

/** What is to be handed over; `now`: PostgreSQL's clock at the claim, ms. */
export type Claimed = NewWork & { now: number }

/** With the places that were free in its client's window. */
type ClaimedInRoom = Claimed & Pick<Claimable, 'room'>

/** An execution whose change is committed: its key, and what its command says. */
export type ChangedExecution = Pick<StoredExecution, 'commandId' | 'clientId' | 'action' | 'createdAt'>

type ChangeListener = (execution: ChangedExecution, before: ExecutionState, after: ExecutionState) => void

/** The only way to change an execution: every input goes through `transition` and a guarded, committed update. */
export interface Ledger {
  /**
   * Undefined if there is no such execution. Resolves after the commit. While PostgreSQL is down it waits, or throws UNAVAILABLE
   * if its caller wants an answer.
   */
  apply(key: ExecutionKey, input: Input, whenDown?: WhenDown): Promise<Applied | undefined>
  /**
   * Applies one input to everything of a client that is handed over, or whose outcome is unknown. With a session, only while it
   * is the client's current one.
   */
  applyToOpen(clientId: string, input: Input, session: ClaimingSession | null): Promise<(ExecutionKey & Applied)[]>
  /** Claims what the session may have now: inside its window, most urgent first; `room`: how many places that had. */
  claim(session: ClaimingSession): Promise<ClaimedInRoom[]>
  /** A new execution that was stored as claimed: from here on it is in the ledger's hands. */
  begin(work: NewWork, claim: EarlyClaim): Claimed
  onChange(listener: ChangeListener): void
  /** Called when PostgreSQL is back: a change whose commit got no answer was told to no `onChange`. */
  onReturn(listener: () => void): void
  /** Whether changes wait for PostgreSQL. */
  failing(): boolean
  stop(): Promise<void>
}

type Job =
  | { kind: 'apply'; key: ExecutionKey; input: Input }
  | {
      kind: 'open'
      clientId: string
      input: Input
      session: ClaimingSession | null
      /** When it is decided again: what of it was not stored. */
      only?: ReadonlySet<string>
    }
  | { kind: 'claim'; session: ClaimingSession }

type Outcome = {
  applied?: Applied | undefined
  open?: (ExecutionKey & Applied)[]
  claimed?: ClaimedInRoom[]
}

/** An execution in hand: what was read, and what the inputs of this round have made of it so far. */
interface Working extends StoredExecution {
  before: ExecutionState
  events: EventDraft[]
  /** Not read in this round, but kept from an earlier one. */
  isHeld: boolean
  guardEpoch: number | null
  /** Whoever was judged by it: what moved nothing may have been judged by what is never stored. */
  judged: Job[]
}

export interface LedgerDeps {
  db: Db
  log: Logger
  metrics: Metrics
  clock: DatabaseClock
  backoff: { baseSeconds: number; maxSeconds: number }
  random?: () => number
  onDown?(error: unknown): void
}

/** Clients are spread over this many lanes: within one, rounds follow each other, so that a client's inputs keep their order. */
const LANES = 2
/** What a client comes back to is a window of rows for each claim, and whoever else is in its lane waits for that statement. */
const ROUND_MAX = 64
/** A change that loses this many races in a row is given up: something is wrong, not busy. */
const MAX_RACES = 20
const MAX_GUARDED_RACES = 3

export function createLedger(deps: LedgerDeps): Ledger {
  const listeners: ChangeListener[] = []
  const meter = deps.metrics.batcher('ledger')
  const held = createHeld()
  const returnListeners: (() => void)[] = []
  const lanes: Batcher<Job, Outcome>[] = Array.from({ length: LANES }, () =>
    createBatcher<Job, Outcome>({
      run: runLane,
      max: ROUND_MAX,
      whenDown: 'hold',
      meter,
      ...(deps.onDown ? { onDown: deps.onDown } : {}),
      onUp: () => {
        for (const listener of returnListeners) listener()
      },
    }),
  )
  const laneOf = (clientId: string) => lanes[hash(clientId) % LANES] as Batcher<Job, Outcome>

  const surroundings = (): Context => ({
    now: deps.clock.now(),
    backoff: deps.backoff,
    random: deps.random ?? Math.random,
  })

  async function runLane(jobs: Job[]): Promise<Outcome[]> {
    try {
      return await runRound(jobs, 0)
    } catch (error) {
      // A claim without an answer may have been committed, and was not forwarded: its repetition looks for it.
      for (const job of jobs) if (job.kind === 'claim') job.session.uncertain = true
      throw error
    }
  }

  async function runRound(jobs: Job[], races: number): Promise<Outcome[]> {
    const read = await load(deps, held, jobs)
    const context = surroundings()
    const outcomes = new Map<Job, Outcome>()
    for (const job of jobs) outcomes.set(job, decide(job, read, context))

    const changed = [...read.working.values()].filter(isChanged)
    const stored = changed.length > 0 ? await storeExecutions(deps.db, changed) : []
    const kept = new Set(stored.map(keyOf))
    for (const work of changed) {
      if (!kept.has(keyOf(work))) continue
      held.keep({ ...work, version: work.version + 1 })
      for (const listener of listeners) listener(work, work.before, work.state)
    }
    // What did not move what is held may move what is there: nothing that was stored has proved it to be the same.
    const lost = [...read.working.values()].filter((work) => (work.isHeld || isChanged(work)) && !kept.has(keyOf(work)))
    for (const work of lost) held.forget(work)
    if (lost.length > 0) await runAgain(lost, outcomes, races)
    return jobs.map((job) => outcomes.get(job) as Outcome)
  }

  /** Somebody else was faster on these rows, or may have been: their jobs are decided again on what is there now. */
  async function runAgain(lost: Working[], outcomes: Map<Job, Outcome>, races: number): Promise<void> {
    const lostKeys = new Set(lost.map(keyOf))
    const again: Job[] = []
    for (const job of new Set(lost.flatMap((work) => work.judged))) {
      const outcome = outcomes.get(job) as Outcome
      if (job.kind === 'claim') outcome.claimed = without(outcome.claimed, lostKeys)
      // What needs the client's current session loses for good once there is a newer one: no reason to fail the others.
      else if (job.kind === 'open' && job.session !== null && races >= MAX_GUARDED_RACES)
        outcome.open = without(outcome.open, lostKeys)
      else again.push(job)
    }
    if (again.length === 0) return
    if (races >= MAX_RACES) throw new Error(`an execution could not be stored: ${[...lostKeys].slice(0, 3).join(', ')}`)
    const narrowed = again.map((job) => (job.kind === 'open' ? { ...job, only: lostKeys } : job))
    const results = await runRound(narrowed, races + 1)
    for (const [index, job] of again.entries()) {
      const earlier = outcomes.get(job) as Outcome
      const later = results[index] as Outcome
      if (job.kind !== 'open') outcomes.set(job, later)
      else outcomes.set(job, { open: [...without(earlier.open, lostKeys), ...(later.open ?? [])] })
    }
  }

  return {
    apply: async (key, input, whenDown = 'hold') =>
      (await laneOf(key.clientId).add({ kind: 'apply', key, input }, whenDown)).applied,
    applyToOpen: async (clientId, input, session) =>
      (await laneOf(clientId).add({ kind: 'open', clientId, input, session })).open ?? [],
    claim: async (session) => (await laneOf(session.clientId).add({ kind: 'claim', session })).claimed ?? [],
    begin(work, { epoch, journalId }) {
      const context = { ...surroundings(), now: work.createdAt }
      const { state } = transition(work.state, { type: 'claim', epoch, journalId }, context)
      held.keep({ ...work, state })
      for (const listener of listeners) listener(work, work.state, state)
      return { ...work, state, now: deps.clock.now() }
    },
    onChange: (listener) => void listeners.push(listener),
    onReturn: (listener) => void returnListeners.push(listener),
    failing: () => lanes.some((lane) => lane.failing()),
    stop: async () => {
      await Promise.all(lanes.map((lane) => lane.stop()))
    },
  }
}

const without = <T extends ExecutionKey>(items: T[] = [], lostKeys: Set<string>): T[] =>
  items.filter((item) => !lostKeys.has(keyOf(item)))

const isChanged = ({ state, before, events }: Working): boolean => state !== before || events.length > 0

interface Read {
  working: Map<string, Working>
  openOf: Map<string, { work: Working; currentEpoch: number | null }[]>
  claimableOf: Map<string, { work: Working; item: Claimable }[]>
}

/** Has everything the jobs of a round are about, held or read; a row that several of them touch is in hand once. */
async function load({ db, clock }: LedgerDeps, held: Held, jobs: Job[]): Promise<Read> {
  const applied = new Map(jobs.flatMap((job) => (job.kind === 'apply' ? [[keyOf(job.key), job.key] as const] : [])))
  const known = clock.isFresh() ? [...applied.values()].map(held.get).filter((item) => item !== undefined) : []
  for (const item of known) applied.delete(keyOf(item))
  const openClients = new Set(jobs.flatMap((job) => (job.kind === 'open' ? [job.clientId] : [])))
  const sessions = new Map(
    jobs.flatMap((job) => (job.kind === 'claim' ? [[job.session.clientId, job.session] as const] : [])),
  )
  const nothing: Loaded<never> = { now: 0, items: [] }
  const [named, open, claimable] = await Promise.all([
    applied.size > 0 ? loadExecutions(db, [...applied.values()]) : nothing,
    openClients.size > 0 ? loadOpenExecutions(db, [...openClients]) : nothing,
    sessions.size > 0 ? loadClaimable(db, [...sessions.values()]) : nothing,
  ])
  const newest = Math.max(named.now, open.now, claimable.now)
  if (newest > 0) clock.observe(newest)
  const working = new Map<string, Working>()
  const inHand = (item: StoredExecution, isHeld = false): Working => {
    const key = keyOf(item)
    const before = working.get(key)
    if (before) return before
    const { commandId, clientId, version, action, createdAt, state } = item
    const work: Working = {
      commandId,
      clientId,
      version,
      action,
      createdAt,
      state,
      before: state,
      events: [],
      isHeld,
      guardEpoch: null,
      judged: [],
    }
    working.set(key, work)
    return work
  }
  for (const item of named.items) inHand(item)
  const openOf = Map.groupBy(
    open.items.map((item) => ({ work: inHand(item), currentEpoch: item.currentEpoch })),
    ({ work }) => work.clientId,
  )
  const claimableOf = Map.groupBy(
    claimable.items.map((item) => ({ work: inHand(item), item })),
    ({ item }) => item.clientId,
  )
  // Last: what was read just now is newer.
  for (const item of known) inHand(item, true)
  return { working, openOf, claimableOf }
}

function decide(job: Job, read: Read, context: Context): Outcome {
  if (job.kind === 'apply') {
    const work = read.working.get(keyOf(job.key))
    return { applied: work && step(work, job, job.input, null, context) }
  }
  if (job.kind === 'open') {
    const { session, only } = job
    const open = (read.openOf.get(job.clientId) ?? []).filter(
      ({ work, currentEpoch }) =>
        (session === null || session.epoch === currentEpoch) && (only === undefined || only.has(keyOf(work))),
    )
    return { open: open.map(({ work }) => applyToOne(work, job, context)) }
  }
  const { session } = job
  const claimed: ClaimedInRoom[] = []
  for (const { work, item } of read.claimableOf.get(session.clientId) ?? []) {
    if (item.epoch !== session.epoch) continue
    // A claim of this very session that is not on its way: its commit got no answer, so nobody forwarded it.
    if (isOwnUnforwarded(work.state, session, item.commandId)) {
      claimed.push({ ...item, state: work.state, now: context.now })
      continue
    }
    const input: Input = { type: 'claim', epoch: session.epoch, journalId: session.journalId }
    const { before, after } = step(work, job, input, session.epoch, context)
    if (after !== before) claimed.push({ ...item, state: after, now: context.now })
  }
  return { claimed }
}

/** A redelivery whose commit got no answer is found here as this session's own: it still has to be sent. */
function applyToOne(work: Working, job: Extract<Job, { kind: 'open' }>, context: Context): ExecutionKey & Applied {
  const applied = step(work, job, job.input, job.session?.epoch ?? null, context)
  const leftOver = job.session !== null && isOwnUnforwarded(applied.before, job.session, work.commandId)
  const effect = leftOver && applied.before.cancelRequestedAt === null ? 'send-command' : applied.effect
  return { commandId: work.commandId, clientId: work.clientId, ...applied, effect }
}

const isOwnUnforwarded = (state: ExecutionState, session: ClaimingSession, commandId: string): boolean =>
  state.status === 'queued' && state.epoch === session.epoch && !session.isOnItsWay(commandId, state.attempt)

function step(work: Working, job: Job, input: Input, guardEpoch: number | null, context: Context): Applied {
  const before = work.state
  const { state, events, effect } = transition(before, input, context)
  work.judged.push(job)
  if (state !== before || events.length > 0) {
    work.state = state
    work.events.push(...events)
    work.guardEpoch = guardEpoch ?? work.guardEpoch
  }
  return { before, after: state, effect, now: context.now }
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193)
  return value >>> 0
}
