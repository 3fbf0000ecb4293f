import { findAlert, acknowledgeAlert as storeAcknowledgement } from '../../db/alerts.ts'
import { audited } from '../../db/audit.ts'
import type { Db } from '../../db/connect.ts'
import type { AcknowledgeAlert, Alert } from '../../schemas/alerts.ts'
import { AppError } from '../../schemas/errors.ts'
import { type Actor, changedBy } from '../access/actor.ts'
import { requireGrantsForAlert } from './alert-grants.ts'
import { ENDING_WHEN_ACKNOWLEDGED } from './kinds.ts'

/**
 * Notes who has seen it. Whoever comes second is answered who was first, and changes nothing. Throws NOT_FOUND,
 * ACTION_NOT_ALLOWED.
 */
export async function acknowledgeAlert(db: Db, actor: Actor, id: string, { note }: AcknowledgeAlert): Promise<Alert> {
  await requireGrantsForAlert(db, actor, await requireAlert(db, id))
  const what = { kind: 'alert.acknowledged', subject: `alert:${id}` } as const
  return audited(db, changedBy(actor), what, async (trx) => {
    const before = await requireAlert(trx, id)
    await storeAcknowledgement(trx, id, actor.principal.name, note ?? null, ENDING_WHEN_ACKNOWLEDGED)
    const after = await requireAlert(trx, id)
    return { before: governed(before), after: governed(after), result: after }
  })
}

async function requireAlert(db: Db, id: string): Promise<Alert> {
  const alert = await findAlert(db, id)
  if (!alert) throw new AppError('NOT_FOUND', `There is no alert ${id}.`)
  return alert
}

const governed = ({ state, acknowledgedBy, note }: Alert) => ({
  state,
  acknowledgedBy: acknowledgedBy ?? null,
  note: note ?? null,
})
