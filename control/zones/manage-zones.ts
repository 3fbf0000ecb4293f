import type { Db } from '../../db/connect.ts'
import { addZoneMember, listZones, removeZoneMember } from '../../db/zones.ts'
import type { Client } from '../../schemas/clients.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Page, Paging } from '../../schemas/paging.ts'
import type { Zone } from '../../schemas/zones.ts'
import { type ClientDeps, tellConfig } from '../clients/manage-clients.ts'
import { readClient } from '../clients/read-clients.ts'

export const readZones = (db: Db, paging: Paging): Promise<Page<Zone>> => listZones(db, paging)

/** Puts a client into a zone; it is told at once. Throws NOT_FOUND. */
export async function joinZone(deps: ClientDeps, zone: string, clientId: string): Promise<Client> {
  const joined = await addZoneMember(deps.db, zone, clientId)
  const client = await readClient(deps.db, clientId)
  if (joined) await tellConfig(deps, client)
  return client
}

/** Takes a client out of a zone; its subscription ends at once. Throws NOT_FOUND if it was not in it. */
export async function leaveZone(deps: ClientDeps, zone: string, clientId: string): Promise<void> {
  if (!(await removeZoneMember(deps.db, zone, clientId))) {
    throw new AppError('NOT_FOUND', `Client ${clientId} is not in zone ${zone}.`)
  }
  await tellConfig(deps, await readClient(deps.db, clientId))
}
