import type { Logger } from 'pino'
import type { Db } from '../../db/connect.ts'
import { findLiveSessions } from '../../db/console-sessions.ts'
import { findEndedKeys } from '../../db/credentials.ts'
import { findLiveTokens } from '../../db/tokens.ts'
import type { AuthenticatedPrincipal } from './actor.ts'

/** What goes on for long after a login (streams, connections) and has to end with the credential that opened it. */
export interface Logins {
  /** Answers how to end the watch: `close` is called once at most, and not after that. */
  watch(principal: AuthenticatedPrincipal, close: (why: string) => void): () => void
  tokenEnded(tokenId: string, why: string): void
  sessionEnded(sessionId: string, why: string): void
  principalEnded(principalId: string, why: string): void
  /** Looks now for what ended elsewhere. */
  recheck(): void
  start(): void
  stop(): Promise<void>
}

export interface LoginsDeps {
  db: Db
  log: Logger
  /** How often credentials that ended elsewhere, or whose time is over, are looked for in the database. */
  recheckSeconds: number
  sessionIdleSeconds: number
  /** Ends what a client does with this key and no other. */
  endClientKey(clientId: string, keyHash: Buffer, why: string): void
}

interface Login {
  principal: AuthenticatedPrincipal
  close(why: string): void
}

/** How late an expiry may be noticed. */
const LOOK_EVERY_MS = 500

export function createLogins(deps: LoginsDeps): Logins {
  const logins = new Set<Login>()
  let timer: NodeJS.Timeout | undefined
  let checkedAt = performance.now()
  let checking: Promise<void> = Promise.resolve()
  let busy = false
  let again = false

  function endAll(ended: (principal: AuthenticatedPrincipal) => boolean, why: string): void {
    for (const login of logins) {
      if (!ended(login.principal)) continue
      logins.delete(login)
      login.close(why)
    }
  }

  function look(): void {
    const now = performance.now()
    endAll(({ endsAt }) => endsAt <= now, 'its token or session has expired')
    if (again || now - checkedAt >= deps.recheckSeconds * 1000) check()
  }

  /** One at a time: what is asked for meanwhile waits for the next look. */
  function check(): void {
    if (busy) {
      again = true
      return
    }
    again = false
    busy = true
    checkedAt = performance.now()
    checking = recheck()
      .catch((error: Error) => deps.log.warn({ reason: error.message }, 'credentials could not be looked at again'))
      .finally(() => {
        busy = false
      })
  }

  /** Another node may have revoked a token or rotated a key, and a key's grace ends by itself. */
  async function recheck(): Promise<void> {
    const ids = new Set([...logins].map(({ principal }) => principal.tokenId))
    if (ids.size > 0) {
      const live = await findLiveTokens(deps.db, [...ids])
      endAll(({ tokenId }) => ids.has(tokenId) && !live.has(tokenId), 'its token was revoked')
    }
    const sessions = new Set([...logins].flatMap(({ principal }) => principal.sessionId ?? []))
    if (sessions.size > 0) {
      const live = await findLiveSessions(deps.db, [...sessions], deps.sessionIdleSeconds)
      endAll(({ sessionId: id }) => id !== null && sessions.has(id) && !live.has(id), 'its session has ended')
    }
    // Looked at more than once, in case this node was slow or could not ask.
    for (const { clientId, keyHash } of await findEndedKeys(deps.db, deps.recheckSeconds * 6)) {
      deps.endClientKey(clientId, keyHash, 'its key was rotated')
    }
  }

  return {
    watch(principal, close) {
      const login = { principal, close }
      logins.add(login)
      return () => void logins.delete(login)
    },
    tokenEnded: (tokenId, why) => endAll((principal) => principal.tokenId === tokenId, why),
    sessionEnded: (sessionId, why) => endAll((principal) => principal.sessionId === sessionId, why),
    principalEnded: (principalId, why) => endAll(({ id }) => id === principalId, why),
    recheck: check,
    start() {
      timer = setInterval(look, LOOK_EVERY_MS)
      timer.unref()
    },
    async stop() {
      clearInterval(timer)
      await checking
    },
  }
}
