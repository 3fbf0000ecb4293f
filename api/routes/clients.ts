import { z } from 'zod'
import {
  changeClient,
  createClient,
  removeClient,
  rotateKey,
  setDisabled,
} from '../../control/clients/manage-clients.ts'
import { readClient, readClients, readQueue } from '../../control/clients/read-clients.ts'
import type { Control } from '../../control/control.ts'
import {
  Client,
  CreateClient,
  CreatedClient,
  ListClients,
  QueueEntry,
  RotatedKey,
  RotateKey,
  UpdateClient,
} from '../../schemas/clients.ts'
import { Id } from '../../schemas/ids.ts'
import { listOf, pagingBy, presentPage } from '../paging.ts'
import { type Route, route } from '../route.ts'

const params = z.object({ id: Id })

export function clientRoutes(control: Control): Route[] {
  const { db } = control
  return [
    route({
      method: 'post',
      path: '/clients',
      summary: 'Register a client. The key is shown once.',
      permission: 'client:manage',
      body: CreateClient,
      responses: { 201: CreatedClient },
      async handle({ body, actor }) {
        const created = await createClient(control, actor, body)
        return { status: 201, headers: { Location: `/api/clients/${created.client.id}` }, body: created }
      },
    }),
    route({
      method: 'get',
      path: '/clients',
      summary: 'Clients by id.',
      permission: 'client:read',
      query: pagingBy(Id).and(ListClients),
      responses: { 200: listOf(Client) },
      async handle({ query: { limit, cursor, ...filter } }) {
        return { status: 200, body: presentPage(await readClients(db, filter, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'get',
      path: '/clients/:id',
      summary: 'One client: its presence, what it reported, its zones.',
      permission: 'client:read',
      params,
      responses: { 200: Client },
      handle: async ({ params: { id } }) => ({ status: 200, body: await readClient(db, id) }),
    }),
    route({
      method: 'patch',
      path: '/clients/:id',
      summary: 'Change its name, zones, window or metadata.',
      permission: 'client:manage',
      params,
      body: UpdateClient,
      responses: { 200: Client },
      handle: async ({ params: { id }, body, actor }) => ({
        status: 200,
        body: await changeClient(control, actor, id, body),
      }),
    }),
    route({
      method: 'delete',
      path: '/clients/:id',
      summary: 'Delete a client; its history stays.',
      permission: 'client:manage',
      params,
      responses: { 204: null },
      async handle({ params: { id }, actor }) {
        await removeClient(control, actor, id)
        return { status: 204 }
      },
    }),
    route({
      method: 'post',
      path: '/clients/:id/rotate-key',
      summary: 'A new key, shown once; the old one stops working at once, or after a grace in which both work.',
      permission: 'client:manage',
      params,
      body: RotateKey,
      responses: { 200: RotatedKey },
      async handle({ params: { id }, body, actor }) {
        return { status: 200, body: { clientKey: await rotateKey(control, actor, id, body) } }
      },
    }),
    route({
      method: 'post',
      path: '/clients/:id/disable',
      summary: 'End its sessions and refuse new ones.',
      permission: 'client:manage',
      params,
      responses: { 200: Client },
      handle: async ({ params: { id }, actor }) => ({ status: 200, body: await setDisabled(control, actor, id, true) }),
    }),
    route({
      method: 'post',
      path: '/clients/:id/enable',
      summary: 'Let it connect again.',
      permission: 'client:manage',
      params,
      responses: { 200: Client },
      handle: async ({ params: { id }, actor }) => ({
        status: 200,
        body: await setDisabled(control, actor, id, false),
      }),
    }),
    route({
      method: 'get',
      path: '/clients/:id/queue',
      summary: 'Its unsettled work in the order in which it goes out, at most 1000.',
      permission: 'client:read',
      params,
      responses: { 200: z.object({ items: z.array(QueueEntry) }) },
      async handle({ params: { id } }) {
        return { status: 200, body: { items: await readQueue(db, id) } }
      },
    }),
  ]
}
