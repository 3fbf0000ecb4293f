import type { Db } from '../../db/connect.ts'
import {
  type DayQuotas,
  findPreview,
  type InsertedCommand,
  previewTargets,
  type Refusal,
} from '../../db/new-commands.ts'
import { type Target, targetName } from '../../schemas/commands.ts'
import { AppError, type ErrorCode } from '../../schemas/errors.ts'
import type { Settings } from '../../schemas/settings.ts'
import type { Actor } from '../access/actor.ts'
import type { SecurityLog } from '../access/security-log.ts'
import type { SharedCounter } from '../cluster/line.ts'
import { notAllowed } from './allowance.ts'
import type { CommandToStore } from './command-inserts.ts'
import { dayLimit, queueLimit } from './limits.ts'

interface RefusalDeps {
  db: Db
  settings: Settings
  securityLog: SecurityLog
  minuteCounter: SharedCounter
}

type RefusalText = (target: Target) => string
type PlainRefusal = Exclude<Refusal, 'targets_changed' | 'not_covered' | 'day_limit' | 'queue_full'>
const REFUSALS: Record<PlainRefusal, { code: ErrorCode; path?: string; text: RefusalText }> = {
  unknown_client: { code: 'NOT_FOUND', text: (target) => `There is no ${targetName(target)}.` },
  no_targets: {
    code: 'NO_TARGETS',
    text: (target) => `Nobody can be sent this: ${targetName(target)} has no client that is enabled and has room.`,
  },
  disabled: { code: 'CLIENT_DISABLED', text: (target) => `The ${targetName(target)} is disabled.` },
  past_expiry: { code: 'INVALID_INPUT', path: 'expiresAt', text: () => 'expiresAt is in the past.' },
  never_due: {
    code: 'INVALID_INPUT',
    path: 'notBefore',
    text: () => 'notBefore is not before the expiry: the command could never run.',
  },
  key_in_use: {
    code: 'CONFLICT',
    text: () => 'This Idempotency-Key was forgotten while it was looked up; repeat the request.',
  },
}

/** What the caller is told when the statement stored nothing. */
export async function refusalError(
  deps: RefusalDeps,
  actor: Actor,
  command: CommandToStore,
  { refusal, uncovered, day }: Extract<InsertedCommand, { refusal: Refusal }>,
): Promise<AppError> {
  const { target } = command
  if (refusal === 'targets_changed') return targetsChanged(deps, command)
  if (refusal === 'not_covered') return notAllowed(actor.principal.name, command.action, target, uncovered)
  if (refusal === 'day_limit') return dayLimit(deps, actor, day as DayQuotas)
  if (refusal === 'queue_full') return queueLimit(target, deps.settings.MAX_PENDING_PER_CLIENT)
  const { code, path, text } = REFUSALS[refusal]
  const message = text(target)
  return new AppError(code, message, path ? [{ path, message }] : undefined)
}

/** 409 with who came and who went since the preview. */
async function targetsChanged(deps: RefusalDeps, command: CommandToStore): Promise<AppError> {
  const shown = await findPreview(deps.db, command.expectedTargets as string)
  const now = await previewTargets(deps.db, command.target, command.priority, deps.settings.MAX_PENDING_PER_CLIENT)
  const message = `The targets of ${targetName(command.target)} are no longer those of the preview; nothing is stored.`
  if (!shown) return new AppError('TARGETS_CHANGED', `${message} The preview itself is forgotten.`)
  const before = new Set(shown)
  const after = new Set(now.targets.map((target) => target.clientId))
  return new AppError('TARGETS_CHANGED', message, undefined, {
    added: [...after.difference(before)],
    removed: [...before.difference(after)],
  })
}
