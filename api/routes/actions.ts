import { z } from 'zod'
import type { Control } from '../../control/control.ts'
import { Action, PutAction } from '../../schemas/actions.ts'
import { Id } from '../../schemas/ids.ts'
import { listOf, pagingBy, presentPage } from '../paging.ts'
import { type Route, route } from '../route.ts'

const params = z.object({ name: Id })

export function actionRoutes({ actions }: Control): Route[] {
  return [
    route({
      method: 'get',
      path: '/actions',
      summary: 'Registered actions by name.',
      permission: 'action:read',
      query: pagingBy(Id),
      responses: { 200: listOf(Action) },
      async handle({ query: { limit, cursor } }) {
        return { status: 200, body: presentPage(await actions.list({ limit, after: cursor })) }
      },
    }),
    route({
      method: 'get',
      path: '/actions/:name',
      summary: 'One action.',
      permission: 'action:read',
      params,
      responses: { 200: Action },
      handle: async ({ params: { name } }) => ({ status: 200, body: await actions.read(name) }),
    }),
    route({
      method: 'put',
      path: '/actions/:name',
      summary: 'Register or replace an action.',
      permission: 'action:manage',
      params,
      body: PutAction,
      responses: { 200: Action },
      handle: async ({ params: { name }, body, actor }) => ({
        status: 200,
        body: await actions.put(actor, name, body),
      }),
    }),
    route({
      method: 'delete',
      path: '/actions/:name',
      summary: 'Forget an action; commands of that name are at_most_once from then on.',
      permission: 'action:manage',
      params,
      responses: { 204: null },
      async handle({ params: { name }, actor }) {
        await actions.remove(actor, name)
        return { status: 204 }
      },
    }),
  ]
}
