import { z } from 'zod'
import {
  createPrincipal,
  createToken,
  readPrincipals,
  readTokens,
  removePrincipal,
  removeToken,
} from '../../control/access/manage-access.ts'
import type { Control } from '../../control/control.ts'
import { Id } from '../../schemas/ids.ts'
import {
  CreatedPrincipal,
  CreatedToken,
  CreatePrincipal,
  CreateToken,
  ListedPrincipal,
  Token,
} from '../../schemas/principals.ts'
import { listOf, pagingBy, presentPage } from '../paging.ts'
import { type Route, route } from '../route.ts'

const params = z.object({ id: z.uuid() })

export function accessRoutes(control: Control): Route[] {
  const { db } = control
  return [
    route({
      method: 'get',
      path: '/principals',
      summary: 'Who may call the API, by name.',
      permission: 'access:read',
      query: pagingBy(Id),
      responses: { 200: listOf(ListedPrincipal) },
      async handle({ query: { limit, cursor } }) {
        return { status: 200, body: presentPage(await readPrincipals(db, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'post',
      path: '/principals',
      summary: 'A principal with its first token, which is shown once.',
      permission: 'access:manage',
      body: CreatePrincipal,
      responses: { 201: CreatedPrincipal },
      handle: async ({ body }) => ({ status: 201, body: await createPrincipal(control, body) }),
    }),
    route({
      method: 'delete',
      path: '/principals/:id',
      summary: 'Its tokens stop working with it; its commands keep its name.',
      permission: 'access:manage',
      params,
      responses: { 204: null },
      async handle({ params: { id } }) {
        await removePrincipal(control, id)
        return { status: 204 }
      },
    }),
    route({
      method: 'get',
      path: '/tokens',
      summary: 'Tokens that were not revoked, oldest first.',
      permission: 'access:read',
      query: pagingBy(z.uuid()),
      responses: { 200: listOf(Token) },
      async handle({ query: { limit, cursor } }) {
        return { status: 200, body: presentPage(await readTokens(db, { limit, after: cursor })) }
      },
    }),
    route({
      method: 'post',
      path: '/tokens',
      summary: 'A further token of a principal, shown once.',
      permission: 'access:manage',
      body: CreateToken,
      responses: { 201: CreatedToken },
      handle: async ({ body }) => ({ status: 201, body: await createToken(control, body) }),
    }),
    route({
      method: 'delete',
      path: '/tokens/:id',
      summary: 'Revoke a token: it stops working at once.',
      permission: 'access:manage',
      params,
      responses: { 204: null },
      async handle({ params: { id } }) {
        await removeToken(control, id)
        return { status: 204 }
      },
    }),
  ]
}
