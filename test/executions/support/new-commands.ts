import { randomUUID } from 'node:crypto'
import type { EarlyClaim, NewCommand } from '../../../db/new-commands.ts'
import type { Target } from '../../../schemas/commands.ts'

/** A command as it is given to the statement, with what a test wishes. */
export const command = (
  target: Target,
  claims: Record<string, EarlyClaim> = {},
  more: Partial<NewCommand> = {},
): NewCommand => ({
  id: randomUUID(),
  principalId: randomUUID(),
  createdBy: 'test',
  idempotencyKey: null,
  requestHash: null,
  target,
  action: 'do',
  payload: undefined,
  priority: 5,
  delivery: 'at_most_once',
  startTimeoutSeconds: 60,
  timeoutSeconds: 90,
  maxRetries: 2,
  notBefore: null,
  expiresAt: null,
  ttlSeconds: 3600,
  expectedTargets: null,
  quota: null,
  claims: new Map(Object.entries(claims)),
  sure: false,
  ...more,
})

export const only = (clientId: string): Target => ({ kind: 'client', clientId })
