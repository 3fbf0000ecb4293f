import { EXPECTATIONS, ROUTES } from '../../access/support/routes.ts'
import { KIND_NAMES, type KindName, kindOf } from './logins.ts'

/** What a caller of this kind is answered at a route, if he is not let in; who is let in is the matrix's in test/access. */
export function deadLoginOf(route: string, kind: KindName): { status: number; code: string } | undefined {
  const { api, agent } = kindOf(kind)
  const allowed = EXPECTATIONS[route]?.allowed
  if (allowed === 'anyone') return undefined
  const code = allowed === 'its client' ? agent : api
  return code && { status: code === 'CLIENT_DISABLED' ? 403 : 401, code }
}

/** Each route with everybody who has no login for it. */
export const DEAD_LOGIN_ROUNDS = ROUTES.map(({ name: route, method }) => ({
  route,
  method,
  kinds: KIND_NAMES.filter((kind) => deadLoginOf(route, kind) !== undefined),
})).filter(({ kinds }) => kinds.length > 0)
