import { hash, randomBytes, timingSafeEqual } from 'node:crypto'

/** `sbk_` for a client key, `sbt_` for an API token, `sbs_` for a session's cookie, `sbe_` for an enrolment code, and 256 random bits: a plain hash of that much entropy cannot be guessed. */
export const newSecret = (kind: 'sbk' | 'sbt' | 'sbs' | 'sbe'): string =>
  `${kind}_${randomBytes(32).toString('base64url')}`

export const hashSecret = (secret: string): Buffer => hash('sha256', secret, 'buffer')

/** In constant time. Both are SHA-256. */
export const sameHash = (a: Buffer, b: Buffer): boolean => a.length === b.length && timingSafeEqual(a, b)
