import type { Target } from '../../schemas/commands.ts'
import { type Grant, scopeName } from '../../schemas/principals.ts'

/** What decides about a client: its id and its zones. */
export interface GrantTarget {
  id: string
  zones: readonly string[]
}

/** From the most specific on: whether a scope is about a client. */
const SCOPES: ((scope: Grant['scope'], target: GrantTarget) => boolean)[] = [
  (scope, { id }) => typeof scope === 'object' && 'clientId' in scope && scope.clientId === id,
  (scope, { zones }) => typeof scope === 'object' && 'zone' in scope && zones.includes(scope.zone),
  (scope) => scope === '*',
]

/**
 * The grant by which this action is allowed with this client, or undefined. The most specific scope decides: the client's own
 * grant, else those of its zones, else `*`. Of several zones' grants the first in the list that allows the action counts.
 */
export function decidingGrant(grants: readonly Grant[], action: string, target: GrantTarget): Grant | undefined {
  for (const applies of SCOPES) {
    const deciding = grants.filter(({ scope }) => applies(scope, target))
    if (deciding.length > 0) return deciding.find(({ actions }) => actions.includes('*') || actions.includes(action))
  }
  return undefined
}

/** Whether a grant is about a client, whatever the action; without a client, whether it is about everything. */
export const reaches = ({ scope }: Grant, target: GrantTarget | undefined): boolean =>
  target ? SCOPES.some((applies) => applies(scope, target)) : scope === '*'

/** Whether two members of a group may be decided differently: then each one has to be looked at. */
export function membersDiffer(grants: readonly Grant[], target: Exclude<Target, { kind: 'client' }>): boolean {
  const same = target.kind === 'zone' ? ['*', `zone:${target.zone}`] : ['*']
  return grants.some((grant) => !same.includes(scopeName(grant)))
}
