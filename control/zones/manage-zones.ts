import { type Audited, audited } from '../../db/audit.ts'
import { findClient } from '../../db/clients.ts'
import type { Db } from '../../db/connect.ts'
import { addZoneMember, listZones, removeZoneMember } from '../../db/zones.ts'
import type { Client } from '../../schemas/clients.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Page, Paging } from '../../schemas/paging.ts'
import type { Zone } from '../../schemas/zones.ts'
import { type Actor, changedBy } from '../access/actor.ts'
import { type ClientDeps, governed, subjectOf, tellConfig } from '../clients/manage-clients.ts'
import { clientNotFound } from '../clients/read-clients.ts'

export const readZones = (db: Db, paging: Paging): Promise<Page<Zone>> => listZones(db, paging)

/** Puts a client into a zone; it is told at once. Throws NOT_FOUND. */
export const joinZone = (deps: ClientDeps, actor: Actor, zone: string, clientId: string): Promise<Client> =>
  changeMembership(deps, actor, 'zone.joined', clientId, async (trx) => {
    await addZoneMember(trx, zone, clientId)
  })

/** Takes a client out of a zone; its subscription ends at once. Throws NOT_FOUND if it was not in it. */
export const leaveZone = (deps: ClientDeps, actor: Actor, zone: string, clientId: string): Promise<Client> =>
  changeMembership(deps, actor, 'zone.left', clientId, async (trx) => {
    if (!(await removeZoneMember(trx, zone, clientId))) {
      throw new AppError('NOT_FOUND', `Client ${clientId} is not in zone ${zone}.`)
    }
  })

async function changeMembership(
  deps: ClientDeps,
  actor: Actor,
  kind: 'zone.joined' | 'zone.left',
  clientId: string,
  change: (trx: Audited) => Promise<void>,
): Promise<Client> {
  const client = await audited(deps.db, changedBy(actor), { kind, subject: subjectOf(clientId) }, async (trx) => {
    const before = await findClient(trx, clientId)
    await change(trx)
    const after = await findClient(trx, clientId)
    if (!before || !after) throw clientNotFound(clientId)
    return { before: governed(before), after: governed(after), result: after }
  })
  await tellConfig(deps, client)
  return client
}
