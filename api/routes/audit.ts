import { z } from 'zod'
import { readAudit, readSecurityEvents } from '../../control/access/read-records.ts'
import type { Control } from '../../control/control.ts'
import { AuditRecord, ListAudit } from '../../schemas/audit.ts'
import { ListSecurityEvents, SecurityEvent } from '../../schemas/security-events.ts'
import { listOf, pagingBy, presentPage } from '../paging.ts'
import { type Route, route } from '../route.ts'

const byNumber = pagingBy(z.string().regex(/^\d{1,15}$/))

export function auditRoutes({ db }: Control): Route[] {
  return [
    route({
      method: 'get',
      path: '/audit',
      summary: 'Who changed what, newest first.',
      permission: 'access:read',
      query: byNumber.and(ListAudit),
      responses: { 200: listOf(AuditRecord) },
      async handle({ query: { limit, cursor, ...filter } }) {
        return { status: 200, body: presentPage(await readAudit(db, filter, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'get',
      path: '/security-events',
      summary: 'What looked like an attack, newest first; one entry per kind, subject and minute.',
      permission: 'access:read',
      query: byNumber.and(ListSecurityEvents),
      responses: { 200: listOf(SecurityEvent) },
      async handle({ query: { limit, cursor, ...filter } }) {
        return { status: 200, body: presentPage(await readSecurityEvents(db, filter, { limit, after: cursor })) }
      },
    }),
  ]
}
