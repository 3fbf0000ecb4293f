import { updatePending } from '../../db/commands.ts'
import type { Db } from '../../db/connect.ts'
import type { Command, UpdateCommand } from '../../schemas/commands.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Actor } from '../access/actor.ts'
import { requireGrants } from './allowance.ts'
import { readCommand } from './read-commands.ts'

/** Changes priority and expiry of what is still pending. Throws NOT_FOUND, ACTION_NOT_ALLOWED, CONFLICT if nothing is pending any more. */
export async function updateCommand(db: Db, actor: Actor, id: string, change: UpdateCommand): Promise<Command> {
  if (actor.principal.grants !== null) await requireGrants(db, actor, await readCommand(db, id))
  const changed = await updatePending(db, id, change, actor.principal.name)
  if (changed === undefined) throw new AppError('NOT_FOUND', `There is no command ${id}.`)
  if (changed === 0)
    throw new AppError('CONFLICT', `Nothing of command ${id} is pending: what was handed over cannot be changed.`)
  return readCommand(db, id)
}
