import type { Db } from '../../db/connect.ts'
import { findExecutionKeys } from '../../db/executions.ts'
import type { Command, ResolveExecution, RetryCommand, RetryOutcome } from '../../schemas/commands.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Actor } from '../access/actor.ts'
import type { Ledger } from '../executions/ledger.ts'
import { requireGrants } from './allowance.ts'
import { readCommand } from './read-commands.ts'

interface RetryDeps {
  db: Db
  ledger: Ledger
}

/** Permits a new attempt of what failed, was rejected, expired or is unknown. Throws NOT_FOUND, ACTION_NOT_ALLOWED. */
export async function retryCommand(
  deps: RetryDeps,
  actor: Actor,
  id: string,
  { clientIds, ttlSeconds }: RetryCommand,
): Promise<RetryOutcome> {
  const command = await readCommand(deps.db, id)
  await requireGrants(deps.db, actor, command, clientIds)
  const keys = await findExecutionKeys(deps.db, id, clientIds)
  const input = { type: 'retry', ttlSeconds: ttlSeconds ?? timeToLive(command), by: actor.principal.name } as const
  const applied = await Promise.all(keys.map((key) => deps.ledger.apply(key, input, 'reject')))
  const retried = applied.filter((change) => change && change.after !== change.before).length
  return { retried, skipped: applied.length - retried }
}

/** Ends an outcome that nobody can tell by a principal's word. Throws NOT_FOUND, ACTION_NOT_ALLOWED, or CONFLICT if the outcome is known. */
export async function resolveExecution(
  deps: RetryDeps,
  actor: Actor,
  id: string,
  clientId: string,
  { outcome, note }: ResolveExecution,
): Promise<void> {
  const command = await readCommand(deps.db, id)
  await requireGrants(deps.db, actor, command, [clientId])
  const word = { type: 'resolve', note, by: actor.principal.name } as const
  const input = outcome === 'retry' ? { ...word, outcome, ttlSeconds: timeToLive(command) } : { ...word, outcome }
  // A deleted client can be sent nothing more; what happened on it can still be found out.
  const [key] = outcome === 'retry' ? await findExecutionKeys(deps.db, id, [clientId]) : [{ commandId: id, clientId }]
  const applied = key && (await deps.ledger.apply(key, input, 'reject'))
  if (!applied) throw new AppError('NOT_FOUND', `Command ${id} has no execution on client ${clientId}.`)
  const { before, after } = applied
  if (after !== before) return
  throw new AppError(
    'CONFLICT',
    `The outcome of command ${id} on client ${clientId} is not unknown: it is ${after.status}.`,
  )
}

/** Without another wish, the original time to live starts anew. */
const timeToLive = (command: Command): number =>
  Math.max(1, Math.round((Date.parse(command.expiresAt) - Date.parse(command.createdAt)) / 1000))
