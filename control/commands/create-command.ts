import { hash } from 'node:crypto'
import type { Db } from '../../db/connect.ts'
import { findIdempotencyKey, type InsertedCommand, previewTargets } from '../../db/new-commands.ts'
import { type Command, type CommandPreview, type CreateCommand, targetOf } from '../../schemas/commands.ts'
import { AppError, type LimitState } from '../../schemas/errors.ts'
import type { Settings } from '../../schemas/settings.ts'
import type { Actor } from '../access/actor.ts'
import type { Authenticator } from '../access/authenticate.ts'
import type { SecurityLog } from '../access/security-log.ts'
import type { Actions } from '../actions/actions.ts'
import type { SharedCounter } from '../cluster/line.ts'
import type { Metrics } from '../metrics/metrics.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { type Allowance, findAllowance } from './allowance.ts'
import type { CommandInserts, CommandToStore } from './command-inserts.ts'
import { commandStatus } from './command-status.ts'
import { dayState, minuteShare } from './limits.ts'
import { readCommand } from './read-commands.ts'
import { refusalError } from './refusals.ts'

export interface CreateCommandDeps {
  db: Db
  settings: Settings
  actions: Actions
  sessions: Sessions
  commandInserts: CommandInserts
  metrics: Metrics
  authenticator: Authenticator
  securityLog: SecurityLog
  /** Counts commands per minute. */
  minuteCounter: SharedCounter
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
    deps.metrics.commandCreated(body.action, command.target.kind)
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
): Promise<{ command: CommandToStore; inserted: Stored; limits: LimitState[] }> {
  const { principal } = actor
  const target = targetOf(body)
  const allowance = await findAllowance(deps, principal, body.action, target)
  const share = allowance && (await minuteShare(deps, actor, allowance))
  try {
    const command: CommandToStore = {
      ...(await complete(deps, body)),
      id,
      principalId: principal.id,
      createdBy: principal.name,
      idempotencyKey: idempotencyKey ?? null,
      requestHash,
      target,
      quota: allowance && quotaOf(allowance),
    }
    const inserted = await deps.commandInserts.add(command)
    if (inserted.refusal !== null) throw await refusalError(deps, actor, command, inserted)
    const limits = [share?.state, inserted.day && dayState(inserted.day)].filter((state) => state != null)
    return { command, inserted, limits }
  } catch (error) {
    await share?.giveBack()
    throw error
  }
}

const quotaOf = ({ everyone, byClient, grants }: Allowance): CommandToStore['quota'] => ({
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

/** What was just committed, without reading it back. */
function presentNew(command: CommandToStore, stored: Stored): Command {
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
