import { z } from 'zod'
import { acknowledgeAlert } from '../../control/alerts/acknowledge-alert.ts'
import { readAlerts } from '../../control/alerts/read-alerts.ts'
import type { Control } from '../../control/control.ts'
import { AcknowledgeAlert, Alert, ListAlerts } from '../../schemas/alerts.ts'
import { listOf, pagingBy, presentPage } from '../paging.ts'
import { type Route, route } from '../route.ts'

export function alertRoutes({ db }: Control): Route[] {
  return [
    route({
      method: 'get',
      path: '/alerts',
      summary: 'What somebody should look at, newest first; without a state, what is not resolved.',
      permission: 'alert:read',
      query: pagingBy(z.uuid()).and(ListAlerts),
      responses: { 200: listOf(Alert) },
      async handle({ query: { limit, cursor, ...filter } }) {
        return { status: 200, body: presentPage(await readAlerts(db, filter, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'post',
      path: '/alerts/:id/acknowledge',
      summary: 'Say that you have seen it. That ends an alert about failed commands; others end by themselves.',
      permission: 'alert:acknowledge',
      params: z.object({ id: z.uuid() }),
      body: AcknowledgeAlert,
      responses: { 200: Alert },
      handle: async ({ params: { id }, body, actor }) => ({
        status: 200,
        body: await acknowledgeAlert(db, actor, id, body),
      }),
    }),
  ]
}
