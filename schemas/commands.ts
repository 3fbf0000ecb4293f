import { z } from 'zod'
import { Delivery, ExecutionError, Status } from './executions.ts'
import { CommandId, Id, Instant, Timestamp } from './ids.ts'
import { JsonValue } from './json.ts'

export const Priority = z.int().min(1).max(10).meta({ description: '10 is the most urgent and passes the window' })

/** Ten years: longer is a mistake in the unit, and would overflow sums of times. */
const Seconds = z.int().min(1).max(315_360_000)
export const TimeoutSeconds = Seconds

export const Target = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('client'), clientId: Id }),
  z.object({ kind: z.literal('zone'), zone: Id }),
  z.object({ kind: z.literal('broadcast') }),
])
export type Target = z.infer<typeof Target>

export const targetName = (target: Target): string =>
  target.kind === 'client'
    ? `client ${target.clientId}`
    : target.kind === 'zone'
      ? `zone ${target.zone}`
      : 'the broadcast'

/** Who a command is for, as `POST /commands` and its preview take it: exactly one of the three. */
const targetFields = {
  clientId: Id.optional(),
  zone: Id.optional(),
  broadcast: z.literal(true).optional(),
}
const commandFields = {
  ...targetFields,
  action: Id,
  payload: JsonValue.optional(),
  priority: Priority.optional(),
  expiresAt: Instant.optional(),
  ttlSeconds: Seconds.optional(),
  notBefore: Instant.optional(),
  startTimeoutSeconds: Seconds.optional(),
  timeoutSeconds: Seconds.optional(),
  maxRetries: z.int().min(0).max(100).optional(),
  /** The `hash` of a preview: the command is refused if its targets are others by now. */
  expectedTargets: z.string().max(100).optional(),
}

/** Body of `POST /commands`. Times that are not given come from the action, then from the settings. */
export const CreateCommand = z
  .strictObject(commandFields)
  .refine(
    ({ clientId, zone, broadcast }) =>
      [clientId, zone, broadcast].filter((target) => target !== undefined).length === 1,
    {
      path: ['clientId'],
      message: 'give exactly one of clientId, zone and broadcast: true',
      // Also when other fields are at fault: every fault is reported at once.
      when: ({ value }) => typeof value === 'object' && value !== null && !Array.isArray(value),
    },
  )
  .refine((body) => body.expiresAt === undefined || body.ttlSeconds === undefined, {
    path: ['expiresAt'],
    message: 'give expiresAt or ttlSeconds, not both',
  })
export type CreateCommand = z.infer<typeof CreateCommand>

/** The target of a body that CreateCommand has accepted. */
export function targetOf({ clientId, zone }: CreateCommand): Target {
  if (clientId !== undefined) return { kind: 'client', clientId }
  return zone !== undefined ? { kind: 'zone', zone } : { kind: 'broadcast' }
}

const Exclusion = z.object({ clientId: Id, reason: z.enum(['disabled', 'queue_full']) })
export type Exclusion = z.infer<typeof Exclusion>

/** Who would get a command, before it is sent. */
export const CommandPreview = z.object({
  total: z.int(),
  online: z.int(),
  targets: z.array(z.object({ clientId: Id, presence: z.enum(['online', 'offline']), pending: z.int() })),
  excluded: z.array(Exclusion),
  hash: z.string(),
})
export type CommandPreview = z.infer<typeof CommandPreview>

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
  excluded: z.array(Exclusion),
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
  zone: Id.optional(),
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

/** Body of `PATCH /commands/{id}`: of what is still pending. */
export const UpdateCommand = z
  .strictObject({ priority: Priority.optional(), expiresAt: Instant.optional() })
  .refine((body) => Object.keys(body).length > 0, { message: 'give priority, expiresAt or both' })
export type UpdateCommand = z.infer<typeof UpdateCommand>

/** Without `ttlSeconds` the original time to live starts anew. */
export const RetryCommand = z.strictObject({
  clientIds: z.array(Id).min(1).max(10_000).optional(),
  ttlSeconds: Seconds.optional(),
})
export type RetryCommand = z.infer<typeof RetryCommand>

/** How many executions got a new attempt, and how many had nothing to retry. */
export const RetryOutcome = z.object({ retried: z.int(), skipped: z.int() })
export type RetryOutcome = z.infer<typeof RetryOutcome>

/** A principal's word about an `outcome_unknown`. */
export const ResolveExecution = z.strictObject({
  outcome: z.enum(['completed', 'failed', 'retry']),
  note: z.string().min(1).max(1000),
})
export type ResolveExecution = z.infer<typeof ResolveExecution>

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
  'held_by_node',
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
