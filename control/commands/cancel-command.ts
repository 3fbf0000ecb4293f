import type { Db } from '../../db/connect.ts'
import { findExecutionKeys } from '../../db/executions.ts'
import type { CancelCommand, CancelOutcome } from '../../schemas/commands.ts'
import { isSettled } from '../../schemas/executions.ts'
import type { Actor } from '../access/actor.ts'
import type { Dispatch } from '../executions/dispatch.ts'
import type { Applied, Ledger } from '../executions/ledger.ts'
import { requireGrants } from './allowance.ts'
import { readCommand } from './read-commands.ts'

/**
 * Withdraws what was never handed over; asks the client about the rest, whose report decides (rule 8). Throws NOT_FOUND,
 * ACTION_NOT_ALLOWED.
 */
export async function cancelCommand(
  deps: { db: Db; ledger: Ledger; dispatch: Dispatch },
  actor: Actor,
  id: string,
  { reason, clientIds }: CancelCommand,
): Promise<CancelOutcome> {
  await requireGrants(deps.db, actor, await readCommand(deps.db, id), clientIds)
  const keys = await findExecutionKeys(deps.db, id, clientIds)
  const applied = await Promise.all(
    keys.map(async (key) => {
      const input = { type: 'cancel', reason: reason ?? null, by: actor.principal.name } as const
      const change = await deps.ledger.apply(key, input, 'reject')
      if (change?.effect === 'send-cancel') await deps.dispatch.sendCancel(key, change.after)
      return change
    }),
  )
  const outcome: CancelOutcome = { cancelled: 0, requested: 0, tooLate: 0 }
  for (const change of applied) if (change) outcome[judge(change)]++
  return outcome
}

/** An execution in doubt settles as outcome_unknown: that is no cancellation that could be promised, so it was asked for. */
function judge({ before, after }: Applied): keyof CancelOutcome {
  if (isSettled(before.status)) return 'tooLate'
  return after.status === 'cancelled' ? 'cancelled' : 'requested'
}
