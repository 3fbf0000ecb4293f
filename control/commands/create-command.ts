import { createHash } from 'node:crypto'
import type { Db } from '../../db/connect.ts'
import {
  findIdempotencyKey,
  findPreview,
  type InsertedCommand,
  insertCommands,
  type NewCommand,
  previewTargets,
  type Refusal,
  readDatabaseClock,
} from '../../db/new-commands.ts'
import { type Command, type CommandPreview, type CreateCommand, targetOf } from '../../schemas/commands.ts'
import { AppError, type ErrorCode } from '../../schemas/errors.ts'
import type { Principal } from '../../schemas/principals.ts'
import type { Settings } from '../../schemas/settings.ts'
import type { Actions } from '../actions/actions.ts'
import { type Batcher, createBatcher } from '../batcher.ts'
import type { Dispatch } from '../executions/dispatch.ts'
import type { Metrics } from '../metrics/metrics.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { createCommandIds } from './command-ids.ts'
import { readCommand } from './read-commands.ts'

export interface CreateCommandDeps {
  db: Db
  settings: Settings
  actions: Actions
  sessions: Sessions
  dispatch: Dispatch
  commandInserts: CommandInserts
  metrics: Metrics
  /** Named point of the way, for the tests that end the process there. */
  passed?(point: 'create-committed'): void
}

/** Creates on their way to PostgreSQL: commands for one client share a statement, a group has one to itself. */
export interface CommandInserts {
  /** Call it before the first command: from then on ids are made by PostgreSQL's clock. */
  start(): Promise<void>
  newId(): string
  add(command: NewCommand): Promise<InsertedCommand>
  stop(): Promise<void>
}

export function createCommandInserts(db: Db, settings: Settings, metrics: Metrics): CommandInserts {
  const ids = createCommandIds()
  const inserts = (max: number, name: string): Batcher<NewCommand, InsertedCommand> =>
    createBatcher<NewCommand, InsertedCommand>({
      run: async (commands) => {
        const inserted = await insertCommands(db, commands, settings.MAX_PENDING_PER_CLIENT)
        for (const result of inserted) if (result.refusal === null) ids.observe(Date.parse(result.createdAt))
        const results = new Map(inserted.map((result) => [result.id, result]))
        return commands.map((command) => results.get(command.id) as InsertedCommand)
      },
      max,
      whenDown: 'reject',
      meter: metrics.batcher(name),
    })
  const single = inserts(200, 'create')
  // Ten thousand rows take their time: nobody's command for one client waits behind them.
  const group = inserts(1, 'create_group')
  return {
    async start() {
      ids.observe((await readDatabaseClock(db)).getTime())
    },
    newId: ids.next,
    add: (command) => (command.target.kind === 'client' ? single : group).add(command),
    stop: async () => {
      await Promise.all([single.stop(), group.stop()])
    },
  }
}

/**
 * Stores a command and the frozen list of its executions, then lets the clients' sessions know. Resolves after the commit.
 * A repeated Idempotency-Key answers the command as it is now, `replayed`; with another body it is IDEMPOTENCY_MISMATCH.
 */
export async function createCommand(
  deps: CreateCommandDeps,
  principal: Principal,
  body: CreateCommand,
  idempotencyKey: string | undefined,
): Promise<{ command: Command; replayed: boolean }> {
  const requestHash = createHash('sha256').update(JSON.stringify(body)).digest('hex')
  const id = deps.commandInserts.newId()
  const target = targetOf(body)
  // Announced before the commit, so that no session's own claim gets ahead of the one publish for the group.
  const group = target.kind === 'client' ? undefined : deps.dispatch.openGroup(id, target)
  try {
    const { command, clientIds } = await store(deps, principal, id, body, idempotencyKey, requestHash)
    deps.metrics.commandCreated(body.action, target.kind)
    deps.passed?.('create-committed')
    if (group) void group.send(clientIds)
    else for (const clientId of clientIds) deps.dispatch.wake(deps.sessions.get(clientId))
    return { command, replayed: false }
  } catch (error) {
    group?.close()
    // Whatever refuses it now, a request that was accepted once is answered with what became of it.
    if (idempotencyKey === undefined || !(error instanceof AppError) || error.code === 'UNAVAILABLE') throw error
    const known = await findIdempotencyKey(deps.db, principal.id, idempotencyKey)
    if (!known) throw error
    if (known.requestHash !== requestHash) {
      throw new AppError('IDEMPOTENCY_MISMATCH', 'This Idempotency-Key was used with another body.')
    }
    return { command: await readCommand(deps.db, known.commandId), replayed: true }
  }
}

/** Who would get this command now, and who of the group would not. */
export async function previewCommand(deps: CreateCommandDeps, body: CreateCommand): Promise<CommandPreview> {
  const action = await deps.actions.find(body.action)
  if (action) deps.actions.checkPayload(action, body.payload)
  const priority = body.priority ?? action?.priority ?? DEFAULT_PRIORITY
  return previewTargets(deps.db, targetOf(body), priority, deps.settings.MAX_PENDING_PER_CLIENT)
}

async function store(
  deps: CreateCommandDeps,
  principal: Principal,
  id: string,
  body: CreateCommand,
  idempotencyKey: string | undefined,
  requestHash: string,
): Promise<{ command: Command; clientIds: string[] }> {
  const { settings, actions, commandInserts } = deps
  const size = body.payload === undefined ? 0 : Buffer.byteLength(JSON.stringify(body.payload))
  if (size > settings.MAX_PAYLOAD_BYTES) {
    throw new AppError(
      'PAYLOAD_TOO_LARGE',
      `The payload has ${size} bytes; at most ${settings.MAX_PAYLOAD_BYTES} are sent to a client.`,
    )
  }
  const action = await actions.find(body.action)
  if (action) actions.checkPayload(action, body.payload)
  const command: NewCommand = {
    id,
    principalId: principal.id,
    createdBy: principal.name,
    idempotencyKey: idempotencyKey ?? null,
    requestHash,
    target: targetOf(body),
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
  const inserted = await commandInserts.add(command)
  if (inserted.refusal === 'targets_changed') throw await targetsChanged(deps, command)
  if (inserted.refusal !== null) throw refusalError(inserted.refusal, command, settings)
  return { command: presentNew(command, inserted), clientIds: inserted.clientIds }
}

const DEFAULT_PRIORITY = 5

const nameOf = ({ target }: NewCommand): string =>
  target.kind === 'client' ? target.clientId : target.kind === 'zone' ? `zone ${target.zone}` : 'the broadcast'

type RefusalText = (command: NewCommand, settings: Settings) => string
const REFUSALS: Record<Exclude<Refusal, 'targets_changed'>, { code: ErrorCode; path?: string; text: RefusalText }> = {
  unknown_client: { code: 'NOT_FOUND', text: (command) => `There is no client ${nameOf(command)}.` },
  no_targets: {
    code: 'NO_TARGETS',
    text: (command) => `Nobody can be sent this: ${nameOf(command)} has no client that is enabled and has room.`,
  },
  disabled: { code: 'CLIENT_DISABLED', text: (command) => `Client ${nameOf(command)} is disabled.` },
  past_expiry: { code: 'INVALID_INPUT', path: 'expiresAt', text: () => 'expiresAt is in the past.' },
  never_due: {
    code: 'INVALID_INPUT',
    path: 'notBefore',
    text: () => 'notBefore is not before the expiry: the command could never run.',
  },
  queue_full: {
    code: 'QUEUE_FULL',
    text: (command, settings) =>
      `Client ${nameOf(command)} has ${settings.MAX_PENDING_PER_CLIENT} commands waiting; only priority 10 is accepted.`,
  },
  key_in_use: {
    code: 'CONFLICT',
    text: () => 'This Idempotency-Key was forgotten while it was looked up; repeat the request.',
  },
}

function refusalError(refusal: keyof typeof REFUSALS, command: NewCommand, settings: Settings): AppError {
  const { code, path, text } = REFUSALS[refusal]
  const message = text(command, settings)
  return new AppError(code, message, path ? [{ path, message }] : undefined)
}

/** 409 with who came and who went since the preview. */
async function targetsChanged(deps: CreateCommandDeps, command: NewCommand): Promise<AppError> {
  const shown = await findPreview(deps.db, command.expectedTargets as string)
  const now = await previewTargets(deps.db, command.target, command.priority, deps.settings.MAX_PENDING_PER_CLIENT)
  const message = `The targets of ${nameOf(command)} are no longer those of the preview; nothing is stored.`
  if (!shown) return new AppError('TARGETS_CHANGED', `${message} The preview itself is forgotten.`)
  const before = new Set(shown)
  const after = new Set(now.targets.map((target) => target.clientId))
  return new AppError('TARGETS_CHANGED', message, undefined, {
    added: [...after.difference(before)],
    removed: [...before.difference(after)],
  })
}

/** What was just committed, without reading it back. */
function presentNew(command: NewCommand, stored: Extract<InsertedCommand, { refusal: null }>): Command {
  const total = stored.clientIds.length
  return {
    id: command.id,
    target: command.target,
    action: command.action,
    ...(command.payload != null ? { payload: command.payload } : {}),
    priority: command.priority,
    delivery: command.delivery,
    status: 'pending',
    counts: { pending: total },
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
