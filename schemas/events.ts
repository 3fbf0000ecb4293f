import { z } from 'zod'
import { Timestamp } from './ids.ts'
import { JsonValue } from './json.ts'

/** Everything that happened, in one append-only table. */
const EVENT_TYPES = [
  'command.created',
  'command.updated',
  'execution.queued',
  'execution.released',
  'execution.redelivered',
  'execution.delivered',
  'execution.running',
  'execution.progress',
  'execution.completed',
  'execution.failed',
  'execution.rejected',
  'execution.cancelled',
  'execution.expired',
  'execution.outcome_unknown',
  'execution.next_attempt',
  'execution.cancel_requested',
  'execution.retried',
  'execution.resolved',
  /** A report that moved nothing: `accepted`, repeated, late, or of an older attempt. */
  'execution.reported',
  'client.created',
  'client.updated',
  'client.deleted',
  'client.online',
  'client.offline',
  'client.event',
  'alert.opened',
  'alert.acknowledged',
  'alert.resolved',
] as const
export const EventType = z.enum(EVENT_TYPES)
export type EventType = z.infer<typeof EventType>

export const Event = z.object({
  id: z.string(),
  type: EventType,
  at: Timestamp,
  commandId: z.uuid().optional(),
  clientId: z.string().optional(),
  attempt: z.int().optional(),
  data: z.record(z.string(), JsonValue),
})
export type Event = z.infer<typeof Event>
