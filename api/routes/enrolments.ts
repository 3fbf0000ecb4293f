import { z } from 'zod'
import type { Control } from '../../control/control.ts'
import { createEnrolment, readEnrolments, removeEnrolment } from '../../control/enrolments/manage-enrolments.ts'
import { redeemEnrolment } from '../../control/enrolments/redeem-enrolment.ts'
import {
  CreatedEnrolment,
  CreateEnrolment,
  Enrolment,
  RedeemEnrolment,
  RedeemedEnrolment,
} from '../../schemas/enrolments.ts'
import { listOf, pagingBy, presentPage } from '../paging.ts'
import { type Route, route } from '../route.ts'

export function enrolmentRoutes(control: Control): Route[] {
  const { db } = control
  return [
    route({
      method: 'get',
      path: '/enrolments',
      summary: 'Enrolments that were not revoked, oldest first; the codes are not shown again.',
      permission: 'client:read',
      query: pagingBy(z.uuid()),
      responses: { 200: listOf(Enrolment) },
      async handle({ query: { limit, cursor } }) {
        return { status: 200, body: presentPage(await readEnrolments(db, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'post',
      path: '/enrolments',
      summary: 'A code with which new devices obtain their id and key, shown once.',
      permission: 'client:manage',
      body: CreateEnrolment,
      responses: { 201: CreatedEnrolment },
      handle: async ({ body, actor }) => ({ status: 201, body: await createEnrolment(control, actor, body) }),
    }),
    route({
      method: 'delete',
      path: '/enrolments/:id',
      summary: 'Revoke a code; clients that came by it stay.',
      permission: 'client:manage',
      params: z.object({ id: z.uuid() }),
      responses: { 204: null },
      async handle({ params: { id }, actor }) {
        await removeEnrolment(control, actor, id)
        return { status: 204 }
      },
    }),
    route({
      method: 'post',
      path: '/enrolments/redeem',
      summary: 'A new device obtains its id and its key. The code is the secret: no token is asked for.',
      permission: 'anyone',
      body: RedeemEnrolment,
      responses: { 201: RedeemedEnrolment, 200: RedeemedEnrolment },
      async handle({ body, from }) {
        const { repeated, ...redeemed } = await redeemEnrolment(control, from, body)
        const headers = { Location: `/api/clients/${redeemed.client.id}` }
        return repeated
          ? { status: 200, headers: { ...headers, 'Idempotent-Replayed': 'true' }, body: redeemed }
          : { status: 201, headers, body: redeemed }
      },
    }),
  ]
}
