import { z } from 'zod'
import { CommandId, Id, Timestamp } from './ids.ts'
import { JsonValue } from './json.ts'

/** What somebody should look at. Each kind has one open alert per subject at most (control/alerts/kinds.ts). */
export const AlertKind = z.enum([
  'outcome_unknown',
  'command_failed',
  'client_lost',
  'client_refused',
  /** A security event of severity `critical`. */
  'security_event',
  /** The event feed is held back. */
  'feed_lag',
])
export type AlertKind = z.infer<typeof AlertKind>

export const Severity = z.enum(['warning', 'critical'])
export type Severity = z.infer<typeof Severity>

/** `open` and `acknowledged` still hold; `resolved` is history. */
const AlertState = z.enum(['open', 'acknowledged', 'resolved'])

export const Alert = z.object({
  id: z.uuid(),
  kind: AlertKind,
  severity: Severity,
  state: AlertState,
  /** What it is about: a command's id, a client's id, a security event's kind and subject (`revoked_key:pda-7`), or `feed`. */
  subject: z.string(),
  clientId: Id.optional(),
  commandId: CommandId.optional(),
  /** For people who were not there. */
  message: z.string(),
  details: z.record(z.string(), JsonValue),
  count: z.int(),
  openedAt: Timestamp,
  lastAt: Timestamp,
  acknowledgedAt: Timestamp.optional(),
  acknowledgedBy: z.string().optional(),
  note: z.string().optional(),
  resolvedAt: Timestamp.optional(),
  /** What ended it. */
  resolution: z.string().optional(),
})
export type Alert = z.infer<typeof Alert>

/** Without `state`: what is not resolved. */
export const ListAlerts = z.object({
  state: z.enum([...AlertState.options, 'all']).optional(),
  kind: AlertKind.optional(),
  clientId: Id.optional(),
  commandId: CommandId.optional(),
})
export type ListAlerts = z.infer<typeof ListAlerts>

export const AcknowledgeAlert = z.strictObject({ note: z.string().min(1).max(1000).optional() })
export type AcknowledgeAlert = z.infer<typeof AcknowledgeAlert>
