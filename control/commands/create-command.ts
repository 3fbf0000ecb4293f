import { createHash } from 'node:crypto'
import { v7 as uuid } from 'uuid'
import {
  findIdempotencyKey,
  type InsertedCommand,
  insertCommands,
  type NewCommand,
  type Refusal,
} from '../../db/commands.ts'
import type { Db } from '../../db/connect.ts'
import type { Command, CreateCommand } from '../../schemas/commands.ts'
import { AppError, type ErrorCode } from '../../schemas/errors.ts'
import type { Principal } from '../../schemas/principals.ts'
import type { Settings } from '../../schemas/settings.ts'
import type { Actions } from '../actions/actions.ts'
import { type Batcher, createBatcher } from '../batcher.ts'
import type { Dispatch } from '../executions/dispatch.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { readCommand } from './read-commands.ts'

export interface CreateCommandDeps {
  db: Db
  settings: Settings
  actions: Actions
  sessions: Sessions
  dispatch: Dispatch
  commandInserts: Batcher<NewCommand, InsertedCommand>
  /** Named point of the way, for the tests that end the process there. */
  passed?(point: 'create-committed'): void
}

/** Creates go to PostgreSQL together: one statement for all that arrive while the previous one is in flight. */
export function createCommandInserts(db: Db, settings: Settings): Batcher<NewCommand, InsertedCommand> {
  return createBatcher<NewCommand, InsertedCommand>({
    run: async (commands) => {
      const results = new Map(
        (await insertCommands(db, commands, settings.MAX_PENDING_PER_CLIENT)).map((result) => [result.id, result]),
      )
      return commands.map((command) => results.get(command.id) as InsertedCommand)
    },
    max: 200,
    whenDown: 'reject',
  })
}

/**
 * Stores a command and its execution, then lets the client's session know. Resolves after the commit.
 * A repeated Idempotency-Key answers the command as it is now, `replayed`; with another body it is IDEMPOTENCY_MISMATCH.
 */
export async function createCommand(
  deps: CreateCommandDeps,
  principal: Principal,
  body: CreateCommand,
  idempotencyKey: string | undefined,
): Promise<{ command: Command; replayed: boolean }> {
  const requestHash = createHash('sha256').update(JSON.stringify(body)).digest('hex')
  try {
    const command = await store(deps, principal, body, idempotencyKey, requestHash)
    deps.passed?.('create-committed')
    deps.dispatch.wake(deps.sessions.get(body.clientId))
    return { command, replayed: false }
  } catch (error) {
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

async function store(
  { settings, actions, commandInserts }: CreateCommandDeps,
  principal: Principal,
  body: CreateCommand,
  idempotencyKey: string | undefined,
  requestHash: string,
): Promise<Command> {
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
    id: uuid(),
    principalId: principal.id,
    createdBy: principal.name,
    idempotencyKey: idempotencyKey ?? null,
    requestHash,
    clientId: body.clientId,
    action: body.action,
    payload: body.payload,
    priority: body.priority ?? action?.priority ?? 5,
    delivery: action?.delivery ?? 'at_most_once',
    startTimeoutSeconds:
      body.startTimeoutSeconds ?? action?.startTimeoutSeconds ?? settings.DEFAULT_START_TIMEOUT_SECONDS,
    timeoutSeconds: body.timeoutSeconds ?? action?.timeoutSeconds ?? settings.DEFAULT_TIMEOUT_SECONDS,
    maxRetries: body.maxRetries ?? action?.maxRetries ?? settings.DEFAULT_MAX_RETRIES,
    notBefore: body.notBefore ?? null,
    expiresAt: body.expiresAt ?? null,
    ttlSeconds: body.ttlSeconds ?? action?.ttlSeconds ?? settings.DEFAULT_TTL_SECONDS,
  }
  const inserted = await commandInserts.add(command)
  if (inserted.refusal !== null) throw refusalError(inserted.refusal, command, settings)
  return presentNew(command, inserted)
}

const REFUSALS: Record<Refusal, [ErrorCode, (command: NewCommand, settings: Settings) => string]> = {
  unknown_client: ['NOT_FOUND', ({ clientId }) => `There is no client ${clientId}.`],
  disabled: ['CLIENT_DISABLED', ({ clientId }) => `Client ${clientId} is disabled.`],
  past_expiry: ['INVALID_INPUT', () => 'expiresAt is in the past.'],
  never_due: ['INVALID_INPUT', () => 'notBefore is not before the expiry: the command could never run.'],
  queue_full: [
    'QUEUE_FULL',
    ({ clientId }, settings) =>
      `Client ${clientId} has ${settings.MAX_PENDING_PER_CLIENT} commands waiting; only priority 10 is accepted.`,
  ],
  key_in_use: ['CONFLICT', () => 'This Idempotency-Key was forgotten while it was looked up; repeat the request.'],
}

function refusalError(refusal: Refusal, command: NewCommand, settings: Settings): AppError {
  const [code, message] = REFUSALS[refusal]
  const path = refusal === 'past_expiry' ? 'expiresAt' : refusal === 'never_due' ? 'notBefore' : undefined
  const text = message(command, settings)
  return new AppError(code, text, path ? [{ path, message: text }] : undefined)
}

/** What was just committed, without reading it back. */
function presentNew(command: NewCommand, stored: Extract<InsertedCommand, { refusal: null }>): Command {
  return {
    id: command.id,
    target: { kind: 'client', clientId: command.clientId },
    action: command.action,
    ...(command.payload != null ? { payload: command.payload } : {}),
    priority: command.priority,
    delivery: command.delivery,
    status: 'pending',
    counts: { pending: 1 },
    total: 1,
    excluded: [],
    attempt: 1,
    createdBy: command.createdBy,
    createdAt: stored.createdAt,
    ...(stored.notBefore !== null ? { notBefore: stored.notBefore } : {}),
    expiresAt: stored.expiresAt,
    startTimeoutSeconds: command.startTimeoutSeconds,
    timeoutSeconds: command.timeoutSeconds,
    maxRetries: command.maxRetries,
  }
}
