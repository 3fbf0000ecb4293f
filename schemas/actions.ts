import { z } from 'zod'
import { Priority, TimeoutSeconds } from './commands.ts'
import { Delivery } from './executions.ts'
import { Id, Timestamp } from './ids.ts'
import { JsonValue } from './json.ts'

/** Body of `PUT /actions/{name}`: how commands with this action are checked, delivered and timed by default. */
export const PutAction = z.strictObject({
  payloadSchema: z.record(z.string(), JsonValue).optional(),
  delivery: Delivery.optional(),
  startTimeoutSeconds: TimeoutSeconds.optional(),
  timeoutSeconds: TimeoutSeconds.optional(),
  ttlSeconds: TimeoutSeconds.optional(),
  maxRetries: z.int().min(0).max(100).optional(),
  priority: Priority.optional(),
  description: z.string().max(2000).optional(),
})
export type PutAction = z.infer<typeof PutAction>

export const Action = z.object({
  name: Id,
  payloadSchema: z.record(z.string(), JsonValue).optional(),
  delivery: Delivery,
  startTimeoutSeconds: z.int().optional(),
  timeoutSeconds: z.int().optional(),
  ttlSeconds: z.int().optional(),
  maxRetries: z.int().optional(),
  priority: z.int().optional(),
  description: z.string().optional(),
  updatedAt: Timestamp,
})
export type Action = z.infer<typeof Action>
