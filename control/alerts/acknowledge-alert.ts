import { acknowledgeAlert as storeAcknowledgement } from '../../db/alerts.ts'
import type { Db } from '../../db/connect.ts'
import type { AcknowledgeAlert, Alert } from '../../schemas/alerts.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Principal } from '../../schemas/principals.ts'
import { ENDING_WHEN_ACKNOWLEDGED } from './kinds.ts'

/** Notes who has seen it. Whoever comes second is answered who was first, and changes nothing. Throws NOT_FOUND. */
export async function acknowledgeAlert(
  db: Db,
  id: string,
  principal: Principal,
  { note }: AcknowledgeAlert,
): Promise<Alert> {
  const alert = await storeAcknowledgement(db, id, principal.name, note ?? null, ENDING_WHEN_ACKNOWLEDGED)
  if (!alert) throw new AppError('NOT_FOUND', `There is no alert ${id}.`)
  return alert
}
