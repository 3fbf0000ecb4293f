import { z } from 'zod'
import { CommandId, Id, Timestamp } from './ids.ts'
import { JsonValue } from './json.ts'

/** In the order of rank: a position (attempt, rank) only grows (contract, rule 2). */
export const STATUSES = [
  'pending',
  'queued',
  'delivered',
  'running',
  'outcome_unknown',
  'completed',
  'failed',
  'rejected',
  'cancelled',
  'expired',
] as const
export const Status = z.enum(STATUSES)
export type Status = z.infer<typeof Status>

const TERMINAL = ['completed', 'failed', 'rejected', 'cancelled', 'expired'] as const satisfies Status[]
const SETTLED = ['outcome_unknown', ...TERMINAL] as const satisfies Status[]

export const isTerminal = (status: Status): boolean => (TERMINAL as readonly Status[]).includes(status)
export const isSettled = (status: Status): boolean => (SETTLED as readonly Status[]).includes(status)

/** `at_most_once` also holds for an action that nobody registered (rule 5). */
export const Delivery = z.enum(['at_least_once', 'at_most_once'])
export type Delivery = z.infer<typeof Delivery>

export const Progress = z.object({
  done: z.number().optional(),
  total: z.number().optional(),
  message: z.string().optional(),
})
export type Progress = z.infer<typeof Progress>

export const ExecutionError = z.object({ code: z.string().max(200), message: z.string().max(8000) })
export type ExecutionError = z.infer<typeof ExecutionError>

/** One command on one client. */
export const Execution = z.object({
  commandId: CommandId,
  clientId: Id,
  status: Status,
  attempt: z.int(),
  progress: Progress.optional(),
  result: JsonValue.optional(),
  error: ExecutionError.optional(),
  queuedAt: Timestamp.optional(),
  deliveredAt: Timestamp.optional(),
  startedAt: Timestamp.optional(),
  completedAt: Timestamp.optional(),
  cancelRequestedAt: Timestamp.optional(),
})
export type Execution = z.infer<typeof Execution>
