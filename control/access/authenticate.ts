import type { Db } from '../../db/connect.ts'
import { findSessions, type StoredSession } from '../../db/console-sessions.ts'
import { findCredentials, findCredentialsByKey, type StoredCredential } from '../../db/credentials.ts'
import { findTokens, type StoredToken } from '../../db/tokens.ts'
import type { ClientConfig } from '../../schemas/clients.ts'
import type { Grant, Principal } from '../../schemas/principals.ts'
import { createBatcher } from '../batcher.ts'
import type { BatchMeter, Metrics } from '../metrics/metrics.ts'
import type { AuthenticatedPrincipal } from './actor.ts'
import { createCache } from './cache.ts'
import type { LastUse } from './last-use.ts'
import { isScoped } from './permissions.ts'
import { refusedKey, refusedSession, refusedToken } from './refused-secrets.ts'
import { hashSecret, sameHash } from './secrets.ts'
import type { SecurityLog } from './security-log.ts'

/** A client as its key shows it. */
export interface ClientCredential {
  id: string
  /** Of the key it came with. */
  keyHash: Buffer
  disabled: boolean
  config: ClientConfig
}

/** Who is behind a key or a token, for whoever comes from `address`. What is refused is noted as a security event. */
export interface Authenticator {
  /** Undefined if there is no such client or the key is another. Throws UNAVAILABLE while the database is down. */
  client(clientId: string, key: string, address: string): Promise<ClientCredential | undefined>
  /** HTTP clients say who they are by their key alone. */
  clientByKey(key: string, address: string): Promise<ClientCredential | undefined>
  clientExists(clientId: string): Promise<boolean>
  /** The zones that a client is in, remembered like its credential. */
  zonesOf(clientId: string): Promise<string[]>
  /** `name`: the principal that the token has to be of, where the login says it. */
  principal(token: string, address: string, name?: string): Promise<AuthenticatedPrincipal | undefined>
  /** By the secret in a browser's cookie. */
  session(secret: string, address: string): Promise<AuthenticatedPrincipal | undefined>
  forgetClient(clientId: string): void
  /** And their sessions. */
  forgetPrincipals(): void
  forgetSessions(): void
}

export interface AuthenticatorDeps {
  db: Db
  securityLog: SecurityLog
  tokenUse: LastUse
  sessionUse: LastUse
  cacheSeconds: number
  sessionIdleSeconds: number
  metrics: Metrics
}

/** Logins at one moment share a look-up, so that a flood of bad ones costs few statements. */
const BATCH = 500

export function createAuthenticator(deps: AuthenticatorDeps): Authenticator {
  const { db, securityLog, tokenUse, sessionUse, cacheSeconds, sessionIdleSeconds } = deps
  const meter = deps.metrics.batcher('credential')
  const clients = createCache(
    cacheSeconds,
    lookUp<StoredCredential>(
      (ids) => findCredentials(db, ids),
      ({ id }) => [id],
      endsOfKeys,
      meter,
    ),
  )
  const keys = createCache(
    cacheSeconds,
    lookUp<StoredCredential>(
      (hashes) => findCredentialsByKey(db, hashes.map(fromHex)),
      ({ keyHash, previous }) => [keyHash, previous?.keyHash].flatMap((hash) => (hash ? [hash.toString('hex')] : [])),
      endsOfKeys,
      meter,
    ),
  )
  const tokens = createCache(
    cacheSeconds,
    lookUp<StoredToken>(
      (hashes) => findTokens(db, hashes.map(fromHex)),
      ({ hash }) => [hash.toString('hex')],
      ({ remainingMs }) => remainingMs,
      meter,
    ),
  )
  const sessions = createCache(
    // A look-up is a use: what it found cannot have become idle within this time.
    Math.min(cacheSeconds, sessionIdleSeconds / 2),
    lookUp<StoredSession>(
      (hashes) => findSessions(db, hashes.map(fromHex), sessionIdleSeconds),
      ({ hash }) => [hash.toString('hex')],
      ({ remainingMs }) => remainingMs,
      meter,
    ),
  )
  const nobody = hashSecret('')

  /** Which of the client's keys this is, if it works now. */
  function judge({ value: stored, endsAt }: Known<StoredCredential>, keyHash: Buffer): ClientCredential | undefined {
    const { id, disabled, config, previous } = stored
    const current = sameHash(keyHash, stored.keyHash)
    const before = previous !== null && sameHash(keyHash, previous.keyHash)
    if (stored.deleted || !(current || (before && performance.now() < endsAt))) return undefined
    return { id, keyHash: current ? stored.keyHash : (previous?.keyHash as Buffer), disabled, config }
  }

  return {
    async client(clientId, key, address) {
      const known = await clients.get(clientId)
      const keyHash = hashSecret(key)
      // As long as a look at a real key takes.
      const login = known ? judge(known, keyHash) : void sameHash(keyHash, nobody)
      if (!login) securityLog.note(refusedKey(known?.value, keyHash, clientId, address))
      return login
    },
    async clientByKey(key, address) {
      const keyHash = hashSecret(key)
      const known = await keys.get(keyHash.toString('hex'))
      const login = known && judge(known, keyHash)
      if (!login) securityLog.note(refusedKey(known?.value, keyHash, undefined, address))
      return login
    },
    async clientExists(clientId) {
      const known = await clients.get(clientId)
      return known !== undefined && !known.value.deleted
    },
    zonesOf: async (clientId) => (await clients.get(clientId))?.value.config.zones ?? [],
    async principal(token, address, name) {
      const known = await tokens.get(hashSecret(token).toString('hex'))
      const works = known && !known.value.revoked && performance.now() < known.endsAt
      if (!works || (name !== undefined && known.value.principal.name !== name)) {
        securityLog.note(refusedToken(known?.value, works ?? false, address, name))
        return undefined
      }
      const { id: tokenId, principal, grants } = known.value
      tokenUse.note(tokenId)
      return { ...principal, tokenId, sessionId: null, grants: within(principal, grants), endsAt: known.endsAt }
    },
    async session(secret, address) {
      const known = await sessions.get(hashSecret(secret).toString('hex'))
      if (!known || known.value.ended || performance.now() >= known.endsAt) {
        if (!known) securityLog.note(refusedSession(address))
        return undefined
      }
      const { id: sessionId, tokenId, principal, grants } = known.value
      sessionUse.note(sessionId)
      tokenUse.note(tokenId)
      return { ...principal, tokenId, sessionId, grants: within(principal, grants), endsAt: known.endsAt }
    },
    forgetPrincipals() {
      tokens.forgetAll()
      sessions.forgetAll()
    },
    forgetSessions: () => sessions.forgetAll(),
    forgetClient(clientId) {
      clients.forget(clientId)
      // Which keys were this client's is not kept; changes are rare, and a look-up is cheap.
      keys.forgetAll()
    },
  }
}

const within = ({ role }: Principal, grants: Grant[]): Grant[] | null => (isScoped(role) ? grants : null)

/** What was found, and when the part of it that ends by itself is over, on the clock of performance.now(). */
interface Known<T> {
  value: T
  endsAt: number
}

/** Look-ups by key that share statements. */
function lookUp<T>(
  find: (keys: string[]) => Promise<T[]>,
  keysOf: (found: T) => string[],
  remainingMsOf: (found: T) => number | null,
  meter: BatchMeter,
): (key: string) => Promise<Known<T> | undefined> {
  const batcher = createBatcher<string, Known<T> | undefined>({
    run: async (keys) => {
      const asked = performance.now()
      const found = new Map<string, Known<T>>()
      for (const value of await find(keys)) {
        const remainingMs = remainingMsOf(value)
        const known = { value, endsAt: remainingMs === null ? Number.POSITIVE_INFINITY : asked + remainingMs }
        for (const key of keysOf(value)) found.set(key, known)
      }
      return keys.map((key) => found.get(key))
    },
    max: BATCH,
    whenDown: 'reject',
    meter,
  })
  return (key) => batcher.add(key)
}

const endsOfKeys = ({ previous }: StoredCredential): number | null => previous?.remainingMs ?? null

const fromHex = (hex: string): Buffer => Buffer.from(hex, 'hex')
