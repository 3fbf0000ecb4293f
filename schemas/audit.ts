import { z } from 'zod'
import { Id, Instant, Timestamp } from './ids.ts'
import { JsonValue } from './json.ts'

/** Every change that is written down. A command's own events are its record. */
export const AuditKind = z.enum([
  'client.created',
  'client.enrolled',
  'client.updated',
  'client.deleted',
  'client.disabled',
  'client.enabled',
  'client.key_rotated',
  'zone.joined',
  'zone.left',
  'action.put',
  'action.deleted',
  'principal.created',
  'principal.deleted',
  'token.created',
  'token.revoked',
  'grants.replaced',
  'enrolment.created',
  'enrolment.revoked',
  'session.opened',
  'session.ended',
  'alert.acknowledged',
])
export type AuditKind = z.infer<typeof AuditKind>

/** What is changed: `client:pda-7`, `action:print`, `principal:ops`, `token:0198…`. */
const AuditSubject = z.string().regex(/^[a-z]+:[A-Za-z0-9._-]{1,64}$/, 'must be like client:pda-7')

/** Of `before` and `after` only what differs; null where there was, or is, nothing. Secrets are in neither. */
export const AuditRecord = z.object({
  id: z.string(),
  at: Timestamp,
  kind: AuditKind,
  subject: AuditSubject,
  /** Absent: the server itself, or a device with an enrolment code. */
  principal: z.string().optional(),
  address: z.string().optional(),
  requestId: z.string().optional(),
  before: z.record(z.string(), JsonValue).nullable(),
  after: z.record(z.string(), JsonValue).nullable(),
})
export type AuditRecord = z.infer<typeof AuditRecord>

export const ListAudit = z.object({
  principal: Id.optional(),
  kind: AuditKind.optional(),
  subject: AuditSubject.optional(),
  since: Instant.optional(),
  until: Instant.optional(),
})
export type ListAudit = z.infer<typeof ListAudit>
