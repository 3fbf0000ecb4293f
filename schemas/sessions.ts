import { z } from 'zod'
import { Grants, Principal } from './principals.ts'

export const OpenSession = z.strictObject({ token: z.string().min(1).max(500) })

/** Who asks, and for how much longer this works. */
export const OwnSession = z.object({
  principal: Principal,
  /** Null: everything that its role allows. */
  grants: Grants.nullable(),
  /** Until the session, or the token in hand, ends whatever is done; null: it does not. */
  endsInSeconds: z.int().nullable(),
  /** With a session: without any request for this long it ends earlier. */
  idleSeconds: z.number().optional(),
  /** With a session: what the header X-CSRF-Token has to say with everything that changes something. */
  csrfToken: z.string().optional(),
})
export type OwnSession = z.infer<typeof OwnSession>
