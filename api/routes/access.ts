import { z } from 'zod'
import {
  createPrincipal,
  createToken,
  putGrants,
  readGrants,
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
  Grants,
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
      handle: async ({ body, actor }) => ({ status: 201, body: await createPrincipal(control, actor, body) }),
    }),
    route({
      method: 'delete',
      path: '/principals/:id',
      summary: 'Its tokens stop working with it; its commands keep its name.',
      permission: 'access:manage',
      params,
      responses: { 204: null },
      async handle({ params: { id }, actor }) {
        await removePrincipal(control, actor, id)
        return { status: 204 }
      },
    }),
    route({
      method: 'get',
      path: '/principals/:id/grants',
      summary: 'What an operator may send and change, where, and how much of it.',
      permission: 'access:read',
      params,
      responses: { 200: Grants },
      handle: async ({ params: { id } }) => ({ status: 200, body: await readGrants(db, id) }),
    }),
    route({
      method: 'put',
      path: '/principals/:id/grants',
      summary: 'Replace all grants of an operator; the most specific one decides: client, zone, then "*".',
      permission: 'access:manage',
      params,
      body: Grants,
      responses: { 200: Grants },
      handle: async ({ params: { id }, body, actor }) => ({
        status: 200,
        body: await putGrants(control, actor, id, body),
      }),
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
      handle: async ({ body, actor }) => ({ status: 201, body: await createToken(control, actor, body) }),
    }),
    route({
      method: 'delete',
      path: '/tokens/:id',
      summary: 'Revoke a token: it stops working at once.',
      permission: 'access:manage',
      params,
      responses: { 204: null },
      async handle({ params: { id }, actor }) {
        await removeToken(control, actor, id)
        return { status: 204 }
      },
    }),
  ]
}
