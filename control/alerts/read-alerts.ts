import { listAlerts } from '../../db/alerts.ts'
import type { Db } from '../../db/connect.ts'
import type { Alert, ListAlerts } from '../../schemas/alerts.ts'
import type { Page, Paging } from '../../schemas/paging.ts'

/** Newest first; without a state, what is not resolved. */
export const readAlerts = (db: Db, filter: ListAlerts, paging: Paging): Promise<Page<Alert>> =>
  listAlerts(db, filter, paging)
