import { findCommand } from '../../db/commands.ts'
import type { Db } from '../../db/connect.ts'
import { findZonesOf } from '../../db/grants.ts'
import type { Alert } from '../../schemas/alerts.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Actor } from '../access/actor.ts'
import { reaches } from '../access/grants.ts'
import { requireGrants } from '../commands/allowance.ts'

/**
 * Whether a principal may acknowledge an alert. About a command, its grants have to cover that; about a client, they have to
 * reach it, whatever the action; about the server itself, they have to reach everywhere. Throws ACTION_NOT_ALLOWED.
 */
export async function requireGrantsForAlert(db: Db, actor: Actor, { id, commandId, clientId }: Alert): Promise<void> {
  const { name, grants } = actor.principal
  if (grants === null) return
  const command = commandId === undefined ? undefined : await findCommand(db, commandId)
  if (command) return requireGrants(db, actor, command, clientId === undefined ? undefined : [clientId])
  const target = clientId === undefined ? undefined : { id: clientId, zones: await findZonesOf(db, clientId) }
  if (!grants.some((grant) => reaches(grant, target))) {
    throw new AppError('ACTION_NOT_ALLOWED', `No grant of ${name} reaches what alert ${id} is about.`)
  }
}
