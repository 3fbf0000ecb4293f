import { type ClientCredential, findCredentialByKey, findCredentials } from '../../db/clients.ts'
import type { Db } from '../../db/connect.ts'
import { findPrincipalByToken } from '../../db/principals.ts'
import type { Principal } from '../../schemas/principals.ts'
import { createBatcher } from '../batcher.ts'
import type { Metrics } from '../metrics/metrics.ts'
import { createCache } from './cache.ts'
import { hashSecret, sameHash } from './secrets.ts'

export type { ClientCredential }

/** Who is behind a key or a token. Answers are remembered briefly; a change of a client drops its entry at once. */
export interface Authenticator {
  /** Undefined if there is no such client or the key is another. Throws UNAVAILABLE while the database is down. */
  client(clientId: string, key: string): Promise<ClientCredential | undefined>
  /** HTTP clients say who they are by their key alone. */
  clientByKey(key: string): Promise<ClientCredential | undefined>
  clientExists(clientId: string): Promise<boolean>
  principal(token: string): Promise<Principal | undefined>
  forgetClient(clientId: string): void
  forgetPrincipals(): void
}

export function createAuthenticator(deps: { db: Db; cacheSeconds: number; metrics: Metrics }): Authenticator {
  const lookups = createBatcher<string, ClientCredential | undefined>({
    run: async (ids) => {
      const found = new Map((await findCredentials(deps.db, ids)).map((credential) => [credential.id, credential]))
      return ids.map((id) => found.get(id))
    },
    max: 500,
    whenDown: 'reject',
    meter: deps.metrics.batcher('credential'),
  })
  const clients = createCache(deps.cacheSeconds, (id) => lookups.add(id))
  const principals = createCache(deps.cacheSeconds, (hash) => findPrincipalByToken(deps.db, Buffer.from(hash, 'hex')))
  const keys = createCache(deps.cacheSeconds, (hash) => findCredentialByKey(deps.db, Buffer.from(hash, 'hex')))
  const nobody = hashSecret('')

  return {
    async client(clientId, key) {
      const credential = await clients.get(clientId)
      const same = sameHash(hashSecret(key), credential?.keyHash ?? nobody)
      return same ? credential : undefined
    },
    clientByKey: (key) => keys.get(hashSecret(key).toString('hex')),
    clientExists: async (clientId) => (await clients.get(clientId)) !== undefined,
    principal: (token) => principals.get(hashSecret(token).toString('hex')),
    forgetPrincipals: () => principals.forgetAll(),
    forgetClient(clientId) {
      clients.forget(clientId)
      // Which keys were this client's is not kept; changes are rare, and a look-up is cheap.
      keys.forgetAll()
    },
  }
}
