import type { AuthenticatedPrincipal } from '../../control/access/actor.ts'
import { endSession, openSession } from '../../control/access/console-sessions.ts'
import type { Control } from '../../control/control.ts'
import { OpenSession, OwnSession } from '../../schemas/sessions.ts'
import { type Route, route } from '../route.ts'
import { csrfToken } from '../session-cookie.ts'

/** The console's login: a browser keeps a cookie that no script can read, instead of a token that every script could. */
export function sessionRoutes(control: Control): Route[] {
  const present = (principal: AuthenticatedPrincipal, secret: string | undefined): OwnSession => {
    const { id, name, role, grants, endsAt, sessionId } = principal
    return {
      principal: { id, name, role },
      grants: grants && [...grants],
      endsInSeconds: Number.isFinite(endsAt) ? Math.floor((endsAt - performance.now()) / 1000) : null,
      ...(sessionId === null || secret === undefined
        ? {}
        : { idleSeconds: control.settings.SESSION_IDLE_SECONDS, csrfToken: csrfToken(secret) }),
    }
  }

  return [
    route({
      method: 'post',
      path: '/session',
      summary: 'Log a browser in: a cookie for a token. The answer has what X-CSRF-Token must say.',
      permission: 'anyone',
      body: OpenSession,
      responses: { 201: OwnSession },
      async handle({ body, from, session }) {
        const { secret, principal } = await openSession(control, from, body.token, session)
        return { status: 201, body: present(principal, secret), session: secret }
      },
    }),
    route({
      method: 'get',
      path: '/session',
      summary: 'Who asks, and for how much longer this works. As any request it keeps a session from being idle.',
      permission: 'session:own',
      responses: { 200: OwnSession },
      handle: async ({ actor, session }) => ({ status: 200, body: present(actor.principal, session) }),
    }),
    route({
      method: 'delete',
      path: '/session',
      summary: 'Log out: the session ends at once, with the streams that it opened.',
      permission: 'session:own',
      responses: { 204: null },
      async handle({ actor }) {
        await endSession(control, actor)
        return { status: 204, session: null }
      },
    }),
  ]
}
