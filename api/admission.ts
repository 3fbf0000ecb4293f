import type { Context } from 'koa'
import { type Actor, type Origin, plainAddress } from '../control/access/actor.ts'
import type { ClientCredential } from '../control/access/authenticate.ts'
import { refusedLogin } from '../control/access/login-throttle.ts'
import { authorize, type Permission } from '../control/access/permissions.ts'
import type { Control } from '../control/control.ts'
import { AppError } from '../schemas/errors.ts'
import { crossSiteFault, isFromAnotherPage, sessionSecret, setSessionCookie } from './session-cookie.ts'

/** What a principal needs; `client`: a client's key, and no principal; `anyone`: nobody is asked who he is. */
export type Gate = Permission | 'client' | 'anyone'

/** Who was let in. */
export type Caller = { actor: Actor } | { client: ClientCredential } | Record<never, never>

/** What a request is let in by, or not. */
export type Admission = Pick<Control, 'authenticator' | 'loginThrottle' | 'refusals' | 'securityLog'>

/** Who calls, if they may. Throws UNAUTHORIZED, RATE_LIMIT, CLIENT_DISABLED, FORBIDDEN. */
export async function admit(ctx: Context, permission: Gate, control: Admission): Promise<Caller> {
  const caller = await authenticate(ctx, permission, control)
  try {
    if ('actor' in caller) authorize(caller.actor.principal, permission as Permission)
  } catch (error) {
    noteForbidden(ctx, caller, control, error)
    throw error
  }
  return caller
}

const FORBIDDEN = ['FORBIDDEN', 'ACTION_NOT_ALLOWED']

export function noteForbidden(ctx: Context, caller: Caller, { securityLog }: Admission, error: unknown): void {
  if (!(error instanceof AppError) || !FORBIDDEN.includes(error.code)) return
  const { address } = fromOf(ctx)
  const who =
    'actor' in caller
      ? { subject: caller.actor.principal.name, principal: caller.actor.principal.name }
      : 'client' in caller
        ? { subject: caller.client.id, clientId: caller.client.id }
        : { subject: address }
  const detail = `${ctx.method} ${ctx.path}: ${error.message}`
  securityLog.note({ kind: 'forbidden_action', ...who, address, detail })
}

/** Where a request came from. */
export const fromOf = (ctx: Context): Origin => ({
  address: plainAddress(ctx.req.socket.remoteAddress),
  requestId: ctx.state.requestId,
})

/** A wrong secret is a failure of its address; a right one is let in whatever went before. */
async function authenticate(ctx: Context, permission: Gate, admission: Admission): Promise<Caller> {
  const { authenticator, loginThrottle, refusals, securityLog } = admission
  if (permission === 'anyone') {
    if (isFromAnotherPage(ctx)) throw crossSite(ctx, admission, 'it comes from another page')
    return {}
  }
  const authorization = ctx.get('authorization')
  if (authorization === '' && permission !== 'client') {
    const session = sessionSecret(ctx)
    if (session !== undefined) return bySession(ctx, session, admission)
  }
  const secret = /^Bearer +(\S+)$/i.exec(authorization)?.[1]
  const [what, form] = permission === 'client' ? ['client key', 'sbk_'] : ['API token', 'sbt_']
  if (secret === undefined) {
    throw new AppError('UNAUTHORIZED', `Give your ${what}: Authorization: Bearer ${form}…`)
  }
  const { address, requestId } = fromOf(ctx)
  if (!secret.startsWith(form)) {
    securityLog.note({ kind: 'bad_key', subject: address, address, detail: `no ${what} at ${ctx.method} ${ctx.path}` })
  } else if (permission === 'client') {
    const client = await authenticator.clientByKey(secret, address)
    if (client?.disabled) {
      refusals.login(client.id, `client ${client.id} is disabled`)
      throw new AppError('CLIENT_DISABLED', `Client ${client.id} is disabled.`)
    }
    if (client) return { client }
  } else {
    const principal = await authenticator.principal(secret, address)
    if (principal) return { actor: { principal, address, requestId } }
  }
  throw await refusedLogin(loginThrottle, address, `The ${what} is not valid.`)
}

/** A browser sends its cookie whoever makes it do so; here only the console itself is listened to. */
async function bySession(ctx: Context, session: string, admission: Admission): Promise<Caller> {
  const { authenticator, loginThrottle } = admission
  const from = fromOf(ctx)
  const principal = await authenticator.session(session, from.address)
  if (!principal) {
    setSessionCookie(ctx, null)
    throw await refusedLogin(loginThrottle, from.address, 'The session has ended; log in again.')
  }
  const fault = crossSiteFault(ctx, session)
  if (fault) throw crossSite(ctx, admission, fault, principal.name)
  return { actor: { ...from, principal } }
}

function crossSite(ctx: Context, { securityLog }: Admission, fault: string, principal?: string): AppError {
  const { address } = fromOf(ctx)
  const who = principal === undefined ? { subject: address } : { subject: principal, principal }
  const detail = `${ctx.method} ${ctx.path}: ${fault} (origin ${ctx.get('origin') || 'not said'})`
  securityLog.note({ kind: 'cross_site', ...who, address, detail })
  return new AppError('FORBIDDEN', `The session's cookie is not enough: ${fault}.`)
}
