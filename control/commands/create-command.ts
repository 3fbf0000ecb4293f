import { hash } from 'node:crypto'
import type { Db } from '../../db/connect.ts'
import {
  findIdempotencyKey,
  type InsertedCommand,
  insertCommands,
  type NewCommand,
  previewTargets,
  readDatabaseClock,
} from '../../db/new-commands.ts'
import { type Command, type CommandPreview, type CreateCommand, targetOf } from '../../schemas/commands.ts'
import { AppError, type LimitState } from '../../schemas/errors.ts'
import type { Settings } from '../../schemas/settings.ts'
import type { Actor } from '../access/actor.ts'
import type { Authenticator } from '../access/authenticate.ts'
import type { SecurityLog } from '../access/security-log.ts'
import type { Actions } from '../actions/actions.ts'
import { type Batcher, createBatcher } from '../batcher.ts'
import type { SharedCounter } from '../cluster/line.ts'
import type { DatabaseClock } from '../database-clock.ts'
import type { Dispatch, StoredCommand } from '../executions/dispatch.ts'
import type { NewWork } from '../executions/ledger.ts'
import { newExecution } from '../executions/states.ts'
import type { Metrics } from '../metrics/metrics.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { type Allowance, findAllowance } from './allowance.ts'
import { createCommandIds } from './command-ids.ts'
import { commandStatus } from './command-status.ts'
import { dayState, minuteShare } from './limits.ts'
import { readCommand } from './read-commands.ts'
import { refusalError } from './refusals.ts'

export interface CreateCommandDeps {
  db: Db
  settings: Settings
  actions: Actions
  sessions: Sessions
  dispatch: Dispatch
  commandInserts: CommandInserts
  metrics: Metrics
  authenticator: Authenticator
  securityLog: SecurityLog
  /** Counts commands per minute. */
  minuteCounter: SharedCounter
  /** Named point of the way, for the tests that end the process there. */
  passed?(point: 'create-committed'): void
}

/**
 * Creates on their way to PostgreSQL: commands for one client share a statement, a group has one to itself. Those that count
 * against a quota wait for its counter, and nobody else's for them.
 */
export interface CommandInserts {
  /** Call it before the first command: from then on ids are made by PostgreSQL's clock. */
  start(): Promise<void>
  newId(): string
  add(command: NewCommand): Promise<InsertedCommand>
  /** Whether commands were refused just now for want of PostgreSQL. */
  failing(): boolean
  stop(): Promise<void>
}

export function createCommandInserts(
  db: Db,
  settings: Settings,
  metrics: Metrics,
  clock: DatabaseClock,
): CommandInserts {
  const limits = { maxPendingPerClient: settings.MAX_PENDING_PER_CLIENT, dayTimeZone: settings.DAY_TIME_ZONE }
  const inserts = (max: number, name: string): Batcher<NewCommand, InsertedCommand> =>
    createBatcher<NewCommand, InsertedCommand>({
      run: async (commands) => {
        const inserted = await insertCommands(db, commands, limits)
        // One statement has one time for all of them.
        const accepted = inserted.find((result) => result.refusal === null)
        if (accepted) clock.observe(Date.parse(accepted.createdAt))
        const results = new Map(inserted.map((result) => [result.id, result]))
        return commands.map((command) => results.get(command.id) as InsertedCommand)
      },
      max,
      whenDown: 'reject',
      meter: metrics.batcher(name),
    })
  const free = { single: inserts(200, 'create'), group: inserts(1, 'create_group') }
  const limited = { single: inserts(200, 'create_limited'), group: inserts(1, 'create_group_limited') }
  const all = [free.single, free.group, limited.single, limited.group]
  return {
    async start() {
      clock.observe((await readDatabaseClock(db)).getTime())
    },
    newId: createCommandIds(clock),
    add(command) {
      const { single, group } = command.quota === null ? free : limited
      // Ten thousand rows take their time: nobody's command for one client waits behind them.
      return (command.target.kind === 'client' ? single : group).add(command)
    },
    failing: () => all.some((batcher) => batcher.failing()),
    stop: async () => {
      await Promise.all(all.map((batcher) => batcher.stop()))
    },
  }
}

/** A command that was stored, or found under its key; `limits`: how those stand that it counts against. */
interface Created {
  command: Command
  replayed: boolean
  limits: LimitState[]
}

/**
 * Stores a command, under an id of `commandInserts`, and the frozen list of its executions, and lets the clients' sessions know.
 * Resolves after the commit.
 * A repeated Idempotency-Key answers the command as it is now, `replayed`; with another body it is IDEMPOTENCY_MISMATCH.
 * Throws ACTION_NOT_ALLOWED, RATE_LIMIT and DAILY_LIMIT for a principal with grants.
 */
export async function createCommand(
  deps: CreateCommandDeps,
  actor: Actor,
  id: string,
  body: CreateCommand,
  idempotencyKey: string | undefined,
): Promise<Created> {
  const requestHash = idempotencyKey === undefined ? null : hash('sha256', JSON.stringify(body), 'hex')
  try {
    const { command, inserted, limits } = await store(deps, actor, id, body, idempotencyKey, requestHash)
    return { command: presentNew(command, inserted), replayed: false, limits }
  } catch (error) {
    // Whatever refuses it now, a request that was accepted once is answered with what became of it.
    if (idempotencyKey === undefined || !(error instanceof AppError) || error.code === 'UNAVAILABLE') throw error
    const known = await findIdempotencyKey(deps.db, actor.principal.id, idempotencyKey)
    if (!known) throw error
    if (known.requestHash !== requestHash) {
      throw new AppError('IDEMPOTENCY_MISMATCH', 'This Idempotency-Key was used with another body.')
    }
    return { command: await readCommand(deps.db, known.commandId), replayed: true, limits: [] }
  }
}

/** Who would get this command now, and who of the group would not. Throws ACTION_NOT_ALLOWED as sending it would. */
export async function previewCommand(
  deps: CreateCommandDeps,
  actor: Actor,
  body: CreateCommand,
): Promise<CommandPreview> {
  const target = targetOf(body)
  await findAllowance(deps, actor.principal, body.action, target)
  const action = await deps.actions.find(body.action)
  if (action) deps.actions.checkPayload(action, body.payload)
  const priority = body.priority ?? action?.priority ?? DEFAULT_PRIORITY
  return previewTargets(deps.db, target, priority, deps.settings.MAX_PENDING_PER_CLIENT)
}

async function store(
  deps: CreateCommandDeps,
  actor: Actor,
  id: string,
  body: CreateCommand,
  idempotencyKey: string | undefined,
  requestHash: string | null,
): Promise<{ command: NewCommand; inserted: Stored; limits: LimitState[] }> {
  const { principal } = actor
  const target = targetOf(body)
  const allowance = await findAllowance(deps, principal, body.action, target)
  const share = allowance && (await minuteShare(deps, actor, allowance))
  try {
    const command: NewCommand = {
      ...(await complete(deps, body)),
      id,
      principalId: principal.id,
      createdBy: principal.name,
      idempotencyKey: idempotencyKey ?? null,
      requestHash,
      target,
      quota: allowance && quotaOf(allowance),
      claims: new Map(),
    }
    const inserted = await insert(deps, command)
    if (inserted.refusal !== null) throw await refusalError(deps, actor, command, inserted)
    const limits = [share?.state, inserted.day && dayState(inserted.day)].filter((state) => state != null)
    return { command, inserted, limits }
  } catch (error) {
    await share?.giveBack()
    throw error
  }
}

/** Announced before the commit, so that no session's own claim gets ahead of it. */
async function insert(deps: CreateCommandDeps, command: NewCommand): Promise<InsertedCommand> {
  const { id, action, target, notBefore } = command
  const announced = deps.dispatch.announce(id, target, notBefore === null)
  try {
    const inserted = await deps.commandInserts.add({ ...command, claims: announced.claims })
    if (inserted.refusal === null) {
      deps.metrics.commandCreated(action, target.kind)
      deps.passed?.('create-committed')
    }
    announced.settle(inserted.refusal === null ? storedCommand(command, inserted) : 'refused')
    return inserted
  } catch (error) {
    announced.settle('unknown')
    throw error
  }
}

const quotaOf = ({ everyone, byClient, grants }: Allowance): NewCommand['quota'] => ({
  everyone,
  byClient,
  dayLimits: Object.fromEntries([...grants].map(([scope, { maxCommandsPerDay }]) => [scope, maxCommandsPerDay])),
})

/** The body with what its action and the settings say about the rest. Throws PAYLOAD_TOO_LARGE, INVALID_INPUT. */
async function complete({ settings, actions }: CreateCommandDeps, body: CreateCommand) {
  const size = body.payload === undefined ? 0 : Buffer.byteLength(JSON.stringify(body.payload))
  if (size > settings.MAX_PAYLOAD_BYTES) {
    throw new AppError(
      'PAYLOAD_TOO_LARGE',
      `The payload has ${size} bytes; at most ${settings.MAX_PAYLOAD_BYTES} are sent to a client.`,
    )
  }
  const action = await actions.find(body.action)
  if (action) actions.checkPayload(action, body.payload)
  return {
    action: body.action,
    payload: body.payload,
    priority: body.priority ?? action?.priority ?? DEFAULT_PRIORITY,
    delivery: action?.delivery ?? 'at_most_once',
    startTimeoutSeconds:
      body.startTimeoutSeconds ?? action?.startTimeoutSeconds ?? settings.DEFAULT_START_TIMEOUT_SECONDS,
    timeoutSeconds: body.timeoutSeconds ?? action?.timeoutSeconds ?? settings.DEFAULT_TIMEOUT_SECONDS,
    maxRetries: body.maxRetries ?? action?.maxRetries ?? settings.DEFAULT_MAX_RETRIES,
    notBefore: body.notBefore ?? null,
    expiresAt: body.expiresAt ?? null,
    ttlSeconds: body.ttlSeconds ?? action?.ttlSeconds ?? settings.DEFAULT_TTL_SECONDS,
    expectedTargets: body.expectedTargets ?? null,
  }
}

const DEFAULT_PRIORITY = 5

type Stored = Extract<InsertedCommand, { refusal: null }>

/** As it was just committed. */
function storedCommand(command: NewCommand, stored: Stored): StoredCommand {
  const { action, payload, priority, target, delivery, maxRetries, startTimeoutSeconds, timeoutSeconds } = command
  const createdAt = Date.parse(stored.createdAt)
  const state = newExecution({
    delivery,
    maxRetries,
    startTimeoutSeconds,
    timeoutSeconds,
    expiresAt: Date.parse(stored.expiresAt),
    notBefore: stored.notBefore === null ? null : Date.parse(stored.notBefore),
  })
  const work: Omit<NewWork, 'clientId'> = {
    commandId: command.id,
    version: 0,
    action,
    payload,
    priority,
    target,
    createdAt,
    state,
  }
  return {
    clientIds: stored.clientIds,
    claimed: new Set(stored.claimed),
    work: (clientId) => ({ ...work, clientId }),
  }
}

/** What was just committed, without reading it back. */
function presentNew(command: NewCommand, stored: Stored): Command {
  const total = stored.clientIds.length
  const queued = stored.claimed.length
  const pending = total - queued
  const counts = { ...(pending > 0 ? { pending } : {}), ...(queued > 0 ? { queued } : {}) }
  return {
    id: command.id,
    target: command.target,
    action: command.action,
    ...(command.payload != null ? { payload: command.payload } : {}),
    priority: command.priority,
    delivery: command.delivery,
    status: commandStatus({ counts, total }),
    counts,
    total,
    excluded: stored.excluded,
    ...(total === 1 ? { attempt: 1 } : {}),
    createdBy: command.createdBy,
    createdAt: stored.createdAt,
    ...(stored.notBefore !== null ? { notBefore: stored.notBefore } : {}),
    expiresAt: stored.expiresAt,
    startTimeoutSeconds: command.startTimeoutSeconds,
    timeoutSeconds: command.timeoutSeconds,
    maxRetries: command.maxRetries,
  }
}
