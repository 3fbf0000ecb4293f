import { z } from 'zod'
import { Delivery, ExecutionError, Status } from './executions.ts'
import { CommandId, Id, Timestamp } from './ids.ts'
import { JsonValue } from './json.ts'

export const Priority = z.int().min(1).max(10).meta({ description: '10 is the most urgent and passes the window' })

/** Ten years: longer is a mistake in the unit, and would overflow sums of times. */
const Seconds = z.int().min(1).max(315_360_000)
export const TimeoutSeconds = Seconds

const EARLIEST = Date.parse('0001-01-01T00:00:00Z')
const LATEST = Date.parse('9999-12-31T23:59:59.999Z')

/** RFC 3339 with any offset, in UTC from here on: PostgreSQL refuses offsets of 16 hours and more, and the year 0. */
const Instant = z.iso
  .datetime({ offset: true, abort: true })
  .refine((text) => Date.parse(text) >= EARLIEST && Date.parse(text) <= LATEST, {
    message: 'must be in the years 1 to 9999 (UTC)',
    abort: true,
  })
  .overwrite((text) => new Date(text).toISOString())

export const Target = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('client'), clientId: Id }),
  z.object({ kind: z.literal('zone'), zone: Id }),
  z.object({ kind: z.literal('broadcast') }),
])
export type Target = z.infer<typeof Target>

/** Body of `POST /commands`. Times that are not given come from the action, then from the settings. */
export const CreateCommand = z
  .strictObject({
    clientId: Id,
    action: Id,
    payload: JsonValue.optional(),
    priority: Priority.optional(),
    expiresAt: Instant.optional(),
    ttlSeconds: Seconds.optional(),
    notBefore: Instant.optional(),
    startTimeoutSeconds: Seconds.optional(),
    timeoutSeconds: Seconds.optional(),
    maxRetries: z.int().min(0).max(100).optional(),
  })
  .refine((body) => body.expiresAt === undefined || body.ttlSeconds === undefined, {
    path: ['expiresAt'],
    message: 'give expiresAt or ttlSeconds, not both',
  })
export type CreateCommand = z.infer<typeof CreateCommand>

export const IdempotencyKey = z.string().regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible ASCII characters')

const CommandCounts = z.partialRecord(Status, z.int())

/** `partially_failed` only for a group whose executions ended differently. */
export const CommandStatus = z.enum([...Status.options, 'partially_failed'])
export type CommandStatus = z.infer<typeof CommandStatus>

export const Command = z.object({
  id: CommandId,
  target: Target,
  action: Id,
  payload: JsonValue.optional(),
  priority: Priority,
  delivery: Delivery,
  status: CommandStatus,
  counts: CommandCounts,
  total: z.int(),
  excluded: z.array(z.object({ clientId: Id, reason: z.string() })),
  attempt: z.int().optional(),
  result: JsonValue.optional(),
  error: ExecutionError.optional(),
  createdBy: z.string(),
  createdAt: Timestamp,
  notBefore: Timestamp.optional(),
  expiresAt: Timestamp,
  startTimeoutSeconds: z.int(),
  timeoutSeconds: z.int(),
  maxRetries: z.int(),
  startedAt: Timestamp.optional(),
  completedAt: Timestamp.optional(),
})
export type Command = z.infer<typeof Command>

export const ListCommands = z.object({
  status: Status.optional(),
  clientId: Id.optional(),
  action: Id.optional(),
  createdAfter: Instant.optional(),
  createdBefore: Instant.optional(),
})
export type ListCommands = z.infer<typeof ListCommands>

export const CancelCommand = z.strictObject({
  reason: z.string().max(1000).optional(),
  clientIds: z.array(Id).min(1).max(10_000).optional(),
})
export type CancelCommand = z.infer<typeof CancelCommand>

/** How many executions were withdrawn at once, asked of their client, or settled before. */
export const CancelOutcome = z.object({ cancelled: z.int(), requested: z.int(), tooLate: z.int() })
export type CancelOutcome = z.infer<typeof CancelOutcome>

/** Why an execution has not moved: a stable code and the same in words. */
const EXPLANATIONS = [
  'client_offline',
  'client_disabled',
  'not_due',
  'retry_scheduled',
  'not_subscribed',
  'refused_at_qos_0',
  'window_full',
  'queue_ahead',
  'about_to_be_sent',
  'waiting_for_puback',
  'waiting_for_reconnect',
  'waiting_for_start',
  'waiting_for_outcome',
  'cancel_requested',
  'outcome_unknown',
] as const
export const Explanation = z.object({
  clientId: Id,
  status: Status,
  attempt: z.int(),
  code: z.enum(EXPLANATIONS),
  message: z.string(),
})
export type Explanation = z.infer<typeof Explanation>
