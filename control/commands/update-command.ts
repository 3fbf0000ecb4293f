import { updatePending } from '../../db/commands.ts'
import type { Db } from '../../db/connect.ts'
import type { Command, UpdateCommand } from '../../schemas/commands.ts'
import { AppError } from '../../schemas/errors.ts'
import { readCommand } from './read-commands.ts'

/** Changes priority and expiry of what is still pending. Throws NOT_FOUND, CONFLICT if nothing is pending any more. */
export async function updateCommand(db: Db, id: string, change: UpdateCommand): Promise<Command> {
  const changed = await updatePending(db, id, change)
  if (changed === undefined) throw new AppError('NOT_FOUND', `There is no command ${id}.`)
  if (changed === 0)
    throw new AppError('CONFLICT', `Nothing of command ${id} is pending: what was handed over cannot be changed.`)
  return readCommand(db, id)
}
