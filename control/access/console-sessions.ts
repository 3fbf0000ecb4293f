import { v7 as uuid } from 'uuid'
import { audited } from '../../db/audit.ts'
import type { Db } from '../../db/connect.ts'
import { deleteSession, insertSession } from '../../db/console-sessions.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Settings } from '../../schemas/settings.ts'
import type { Tell } from '../cluster/hints.ts'
import { type Actor, changedBy, type Origin } from './actor.ts'
import type { Authenticator } from './authenticate.ts'
import { type LoginThrottle, refusedLogin } from './login-throttle.ts'
import type { Logins } from './logins.ts'
import { hashSecret, newSecret } from './secrets.ts'

interface LoginDeps {
  authenticator: Authenticator
  loginThrottle: LoginThrottle
}

interface SessionDeps extends LoginDeps {
  db: Db
  logins: Logins
  /** Tells the other nodes, if there are any. */
  tell: Tell
  settings: Pick<Settings, 'SESSION_MAX_SECONDS' | 'SESSION_MAX_OPEN'>
}

/**
 * A session for a browser, opened with a token and ending with it; `replaces`: the secret of the one that the browser had.
 * Answers the new secret, once. Throws UNAUTHORIZED, RATE_LIMIT.
 */
export async function openSession(
  deps: SessionDeps,
  from: Origin,
  token: string,
  replaces: string | undefined,
): Promise<{ secret: string; principal: Actor['principal'] }> {
  const { authenticator, loginThrottle, settings, tell } = deps
  const owner = await authenticator.principal(token, from.address)
  if (!owner) {
    throw await refusedLogin(loginThrottle, from.address, 'The API token is not valid.')
  }
  const before = replaces === undefined ? undefined : await authenticator.session(replaces, from.address)
  if (before) await endSession(deps, { ...from, principal: before })
  const id = uuid()
  const secret = newSecret('sbs')
  const what = { kind: 'session.opened', subject: `session:${id}` } as const
  await audited(deps.db, changedBy({ ...from, principal: owner }), what, async (trx) => {
    const session = { id, tokenId: owner.tokenId, hash: hashSecret(secret), maxSeconds: settings.SESSION_MAX_SECONDS }
    await insertSession(trx, session, settings.SESSION_MAX_OPEN)
    return { before: null, after: { principal: owner.name, token: owner.tokenId }, result: undefined }
  })
  // Of too many sessions the oldest has ended.
  authenticator.forgetSessions()
  tell('access', {})
  const principal = await authenticator.session(secret, from.address)
  if (!principal) throw new AppError('UNAUTHORIZED', 'The API token has just ended.')
  return { secret, principal }
}

/** It stops working at once, and what was opened with it ends. Who came with a token has none, and nothing changes. */
export async function endSession(
  { db, authenticator, logins, tell }: Pick<SessionDeps, 'db' | 'authenticator' | 'logins' | 'tell'>,
  actor: Actor,
): Promise<void> {
  const { sessionId: id, name, tokenId: token } = actor.principal
  if (id === null) return
  await audited(db, changedBy(actor), { kind: 'session.ended', subject: `session:${id}` }, async (trx) => {
    await deleteSession(trx, id)
    return { before: { principal: name, token }, after: null, result: undefined }
  })
  authenticator.forgetSessions()
  tell('access', {})
  logins.sessionEnded(id, 'its session was ended')
}
