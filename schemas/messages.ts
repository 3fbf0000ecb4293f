import { z } from 'zod'
import { Target } from './commands.ts'
import { ExecutionError, Progress } from './executions.ts'
import { CommandId, Id, Timestamp } from './ids.ts'
import { JsonValue } from './json.ts'

/** To the client, on a `commands` topic. `expiresInSeconds` counts from arrival, on the client's monotonic clock. */
export const CommandMessage = z.object({
  type: z.literal('command'),
  id: CommandId,
  attempt: z.int().min(1),
  action: Id,
  payload: JsonValue.optional(),
  priority: z.int(),
  target: Target,
  createdAt: Timestamp,
  sentAt: Timestamp,
  expiresInSeconds: z.number(),
  timeoutSeconds: z.int(),
})
export type CommandMessage = z.infer<typeof CommandMessage>

/** An unknown (id, attempt) is answered `cancelled`, and never run, if `journalId` is the client's own, else `outcome_unknown`. */
export const CancelMessage = z.object({
  type: z.literal('cancel'),
  id: CommandId,
  attempt: z.int().min(1),
  journalId: z.string().optional(),
  reason: z.string().optional(),
})
export type CancelMessage = z.infer<typeof CancelMessage>

export const DeviceBound = z.discriminatedUnion('type', [CommandMessage, CancelMessage])

/** `accepted` moves nothing: it is for clients whose MQTT library PUBACKs before they have kept the command. */
export const ReportStatus = z.enum([
  'accepted',
  'running',
  'completed',
  'failed',
  'rejected',
  'cancelled',
  'expired',
  'outcome_unknown',
])
export type ReportStatus = z.infer<typeof ReportStatus>

/** From the client, on `commands/{commandId}/status`. Without `attempt` it means the last one handed over. */
export const Report = z.object({
  status: ReportStatus,
  attempt: z.int().min(1).max(1_000_000).optional(),
  progress: Progress.optional(),
  result: JsonValue.optional(),
  error: ExecutionError.optional(),
  at: z.string().max(64).optional(),
})
export type Report = z.infer<typeof Report>

/** From the client, on `events/{type}`; `id` makes a repetition recognisable. */
export const ClientEvent = z.looseObject({
  id: z.string().min(1).max(200),
  seq: z.int().optional(),
  at: z.string().max(64).optional(),
})
export type ClientEvent = z.infer<typeof ClientEvent>

/** To the client, on `replies`. */
export const ErrorReply = z.object({
  type: z.literal('error'),
  code: z.string(),
  message: z.string(),
  topic: z.string(),
})
export type ErrorReply = z.infer<typeof ErrorReply>
