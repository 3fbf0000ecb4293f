import type { ChangedBy } from '../../db/audit.ts'
import type { Grant, Principal } from '../../schemas/principals.ts'

/** A principal as the token in hand shows it. */
export interface AuthenticatedPrincipal extends Principal {
  tokenId: string
  /** The session whose cookie it came with; null: the token itself. */
  sessionId: string | null
  /** What it may send and change; null: everything that its role allows. */
  grants: readonly Grant[] | null
  /** When the token, or the session, expires, on the clock of performance.now(). */
  endsAt: number
}

/** Where a request came from, whoever sent it. */
export interface Origin {
  address: string
  requestId: string
}

/** On whose behalf something is done, and where the request came from. */
export interface Actor extends Origin {
  principal: AuthenticatedPrincipal
}

export const changedBy = ({ principal, address, requestId }: Actor): ChangedBy => ({
  principal: principal.name,
  address,
  requestId,
})

export const THE_SERVER: ChangedBy = { principal: null, address: null, requestId: null }

/** A socket's remote address; IPv4 looks the same on a listener for IPv6. */
export const plainAddress = (address: string | undefined): string => address?.replace(/^::ffff:(?=\d+\.)/i, '') ?? '?'
