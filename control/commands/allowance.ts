import type { Db } from '../../db/connect.ts'
import { findClientsOfCommand, findMembers } from '../../db/grants.ts'
import { type Target, targetName } from '../../schemas/commands.ts'
import { AppError } from '../../schemas/errors.ts'
import { type Grant, scopeName } from '../../schemas/principals.ts'
import type { Actor, AuthenticatedPrincipal } from '../access/actor.ts'
import type { Authenticator } from '../access/authenticate.ts'
import { decidingGrant, type GrantTarget, membersDiffer } from '../access/grants.ts'

/** By which of its grants, named by their scopes, a principal may send a command: theirs are the limits that it counts against. */
export interface Allowance {
  /** The grant that decides for every target; null: it is told by client. */
  everyone: string | null
  byClient: Map<string, string>
  /** All that are involved. */
  grants: Map<string, Grant>
}

interface AllowanceDeps {
  db: Db
  authenticator: Authenticator
}

/**
 * Null: nothing is limited. Throws ACTION_NOT_ALLOWED if one target or more are not covered. Asks the database only about a
 * group whose members may be decided differently; who joins it until the command is stored is judged there.
 */
export async function findAllowance(
  deps: AllowanceDeps,
  { grants, name }: AuthenticatedPrincipal,
  action: string,
  target: Target,
): Promise<Allowance | null> {
  if (grants === null) return null
  if (target.kind === 'client') {
    const zones = await deps.authenticator.zonesOf(target.clientId)
    const grant = decidingGrant(grants, action, { id: target.clientId, zones })
    if (grant) return forEveryone(grant)
    throw notAllowed(name, action, target)
  }
  const alike = !membersDiffer(grants, target)
  const anybody = { id: '', zones: target.kind === 'zone' ? [target.zone] : [] }
  const grant = alike && decidingGrant(grants, action, anybody)
  if (grant) return forEveryone(grant)
  const members = await findMembers(deps.db, target)
  const allowance = forEach(grants, action, members)
  const uncovered = members.length - allowance.byClient.size
  // A group without members is refused, too, where nobody in it could be sent this.
  if (uncovered > 0 || alike) throw notAllowed(name, action, target, uncovered, members.length)
  return allowance
}

const forEveryone = (grant: Grant): Allowance => ({
  everyone: scopeName(grant),
  byClient: new Map(),
  grants: new Map([[scopeName(grant), grant]]),
})

function forEach(grants: readonly Grant[], action: string, members: GrantTarget[]): Allowance {
  const allowance = { everyone: null, byClient: new Map<string, string>(), grants: new Map<string, Grant>() }
  for (const member of members) {
    const grant = decidingGrant(grants, action, member)
    if (!grant) continue
    allowance.byClient.set(member.id, scopeName(grant))
    allowance.grants.set(scopeName(grant), grant)
  }
  return allowance
}

/**
 * Whether a principal may change a command: its grants have to cover the action for every client concerned, all of the command or
 * those named. Throws ACTION_NOT_ALLOWED.
 */
export async function requireGrants(
  db: Db,
  { principal: { grants, name } }: Actor,
  command: { id: string; action: string; target: Target },
  clientIds?: string[],
): Promise<void> {
  if (grants === null) return
  const clients = await findClientsOfCommand(db, command.id, clientIds)
  const uncovered = clients.filter((client) => !decidingGrant(grants, command.action, client)).length
  if (uncovered > 0) throw notAllowed(name, command.action, command.target, uncovered, clients.length)
}

export function notAllowed(name: string, action: string, target: Target, uncovered?: number, total?: number): AppError {
  const where = targetName(target)
  if (uncovered === undefined)
    return new AppError('ACTION_NOT_ALLOWED', `No grant of ${name} allows ${action} for ${where}.`)
  const of = total === undefined ? '' : ` of ${total}`
  const message = `No grant of ${name} allows ${action} for ${uncovered}${of} targets of ${where}; nothing is done.`
  return new AppError('ACTION_NOT_ALLOWED', message, undefined, { uncovered })
}
