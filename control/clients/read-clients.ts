import { findClient, listClients, listQueue, type QueuedWork } from '../../db/clients.ts'
import type { Db } from '../../db/connect.ts'
import type { Client, ListClients } from '../../schemas/clients.ts'
import { AppError } from '../../schemas/errors.ts'
import type { Page, Paging } from '../../schemas/paging.ts'

/** Throws NOT_FOUND. */
export async function readClient(db: Db, id: string): Promise<Client> {
  const client = await findClient(db, id)
  if (!client) throw clientNotFound(id)
  return client
}

export const readClients = (db: Db, filter: ListClients, paging: Paging): Promise<Page<Client>> =>
  listClients(db, filter, paging)

const QUEUE_LIMIT = 1000

/** Unsettled work in the order in which it goes out, at most 1000. Throws NOT_FOUND. */
export async function readQueue(db: Db, id: string): Promise<QueuedWork[]> {
  await readClient(db, id)
  return listQueue(db, id, QUEUE_LIMIT)
}

export const clientNotFound = (id: string): AppError => new AppError('NOT_FOUND', `There is no client ${id}.`)
