import type { StoredCredential } from '../../db/credentials.ts'
import type { StoredToken } from '../../db/tokens.ts'
import { sameHash } from './secrets.ts'
import type { Noticed } from './security-log.ts'

/** What a client key that was refused means. `clientId`: for whom it was given, if the login said that. */
export function refusedKey(
  stored: StoredCredential | undefined,
  keyHash: Buffer,
  clientId: string | undefined,
  address: string,
): Noticed {
  if (!stored) {
    const detail = clientId === undefined ? 'a client key that is none' : `no client ${clientId}`
    return { kind: 'bad_key', subject: address, address, detail }
  }
  const { id, deleted, previous } = stored
  const was = sameHash(keyHash, stored.keyHash) || (previous !== null && sameHash(keyHash, previous.keyHash))
  const about = { subject: id, clientId: id, address }
  if (!was) return { kind: 'bad_key', ...about, detail: `not the key of client ${id}` }
  const why = deleted ? 'the client was deleted' : 'the key was rotated away'
  return { kind: 'revoked_key', ...about, detail: `key of client ${id}: ${why}` }
}

/** What a session's cookie means that belongs to no session. One that has ended is known for a while, and means nothing. */
export const refusedSession = (address: string): Noticed => ({
  kind: 'bad_key',
  subject: address,
  address,
  detail: 'the cookie of a session that is none',
})

/** What a token that was refused means. `works`: it is good, but not for the principal that it was given for. */
export function refusedToken(
  stored: StoredToken | undefined,
  works: boolean,
  address: string,
  name: string | undefined,
): Noticed {
  if (!stored) {
    const detail = name === undefined ? 'a token that is none' : `a token that is none, for principal ${name}`
    return { kind: 'bad_key', subject: address, address, detail }
  }
  const { id, principal, revoked } = stored
  const about = { subject: principal.name, principal: principal.name, address }
  if (works) return { kind: 'bad_key', ...about, detail: `token ${id} used for principal ${name}` }
  if (revoked) return { kind: 'revoked_key', ...about, detail: `token ${id} was revoked` }
  return { kind: 'expired_key', ...about, detail: `token ${id} has expired` }
}
