import { z } from 'zod'
import { Instant, Timestamp } from './ids.ts'

const Severity = z.enum(['info', 'warning', 'critical'])

/** What is noticed, and how bad it is: the one table. */
export const SECURITY_EVENTS = {
  /** A key, token or enrolment code that is none, or another's. */
  bad_key: 'warning',
  /** A key that was rotated away, a token or an enrolment code that was revoked, a key or token of somebody who was deleted: it may have been stolen. */
  revoked_key: 'critical',
  /** A token or an enrolment code past its time. */
  expired_key: 'warning',
  /** An enrolment code that was used as often as it may be: somebody else has it. */
  spent_code: 'warning',
  /** A valid key with a client id that is not its own. */
  foreign_client_id: 'warning',
  /** A publish, or a will, where the login may not publish. */
  forbidden_topic: 'warning',
  /** A session's cookie with a request that does not come from the console itself. */
  cross_site: 'warning',
  /** What the role or the grants do not allow. */
  forbidden_action: 'warning',
  /** More than 150 % of a limit was asked for. */
  over_quota: 'warning',
} as const satisfies Record<string, z.infer<typeof Severity>>

const SecurityEventKind = z.enum(Object.keys(SECURITY_EVENTS) as [SecurityEventKind, ...SecurityEventKind[]])
export type SecurityEventKind = keyof typeof SECURITY_EVENTS

/** One row per kind, subject and minute: `count` says how often. `subject`: client, principal, enrolment or address; `*`: too many to tell. */
export const SecurityEvent = z.object({
  id: z.string(),
  kind: SecurityEventKind,
  severity: Severity,
  subject: z.string(),
  principal: z.string().optional(),
  clientId: z.string().optional(),
  address: z.string().optional(),
  detail: z.string(),
  count: z.int(),
  firstAt: Timestamp,
  lastAt: Timestamp,
})
export type SecurityEvent = z.infer<typeof SecurityEvent>

export const ListSecurityEvents = z.object({
  kind: SecurityEventKind.optional(),
  severity: Severity.optional(),
  subject: z
    .string()
    .regex(/^[\x21-\x7e]{1,100}$/, 'must be 1 to 100 visible ASCII characters')
    .optional(),
  since: Instant.optional(),
  until: Instant.optional(),
})
export type ListSecurityEvents = z.infer<typeof ListSecurityEvents>
