import { listAudit } from '../../db/audit.ts'
import type { Db } from '../../db/connect.ts'
import { listSecurityEvents } from '../../db/security-events.ts'
import type { AuditRecord, ListAudit } from '../../schemas/audit.ts'
import type { Page, Paging } from '../../schemas/paging.ts'
import type { ListSecurityEvents, SecurityEvent } from '../../schemas/security-events.ts'

/** Who changed what, newest first. */
export const readAudit = (db: Db, filter: ListAudit, paging: Paging): Promise<Page<AuditRecord>> =>
  listAudit(db, filter, paging)

/** What looked like an attack, newest first. */
export const readSecurityEvents = (db: Db, filter: ListSecurityEvents, paging: Paging): Promise<Page<SecurityEvent>> =>
  listSecurityEvents(db, filter, paging)
