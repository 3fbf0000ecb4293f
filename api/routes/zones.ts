import { z } from 'zod'
import type { Control } from '../../control/control.ts'
import { joinZone, leaveZone, readZones } from '../../control/zones/manage-zones.ts'
import { Client } from '../../schemas/clients.ts'
import { Id } from '../../schemas/ids.ts'
import { Zone } from '../../schemas/zones.ts'
import { listOf, pagingBy, presentPage } from '../paging.ts'
import { type Route, route } from '../route.ts'

const params = z.object({ zone: Id, id: Id })

export function zoneRoutes(control: Control): Route[] {
  return [
    route({
      method: 'get',
      path: '/zones',
      summary: 'Zones by name, with how many clients each has.',
      permission: 'client:read',
      query: pagingBy(Id),
      responses: { 200: listOf(Zone) },
      async handle({ query: { limit, cursor } }) {
        return { status: 200, body: presentPage(await readZones(control.db, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'put',
      path: '/zones/:zone/clients/:id',
      summary: 'Put a client into a zone.',
      permission: 'client:manage',
      params,
      responses: { 200: Client },
      handle: async ({ params: { zone, id }, actor }) => ({
        status: 200,
        body: await joinZone(control, actor, zone, id),
      }),
    }),
    route({
      method: 'delete',
      path: '/zones/:zone/clients/:id',
      summary: 'Take a client out of a zone.',
      permission: 'client:manage',
      params,
      responses: { 204: null },
      async handle({ params: { zone, id }, actor }) {
        await leaveZone(control, actor, zone, id)
        return { status: 204 }
      },
    }),
  ]
}
