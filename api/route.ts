import Router from '@koa/router'
import type { Context } from 'koa'
import type { z } from 'zod'
import type { Authenticator, ClientCredential } from '../control/access/authenticate.ts'
import { authorize, type Permission } from '../control/access/permissions.ts'
import type { Refusals } from '../control/alerts/refusals.ts'
import { AppError, invalidInput } from '../schemas/errors.ts'
import { jsonFault } from '../schemas/json.ts'
import type { Principal } from '../schemas/principals.ts'

/** What a handler gets: parsed and authorised. */
export interface RouteInput<Params, Query, Body> {
  params: Params
  query: Query
  body: Body
  principal: Principal
  /** Only where the permission is `client`. */
  client: ClientCredential
  /** Header values by lower-case name. */
  header(name: string): string | undefined
  /** Aborted when the caller is gone or the server stops. */
  gone: AbortSignal
}

export interface Reply {
  status: number
  headers?: Record<string, string>
  body?: unknown
}

/** A route as data: documents, tests and the router read the same list. */
export interface Route {
  method: 'get' | 'post' | 'put' | 'patch' | 'delete'
  /** Below /api, in @koa/router's syntax. */
  path: string
  summary: string
  /** What a principal needs; `client`: a client's own door, opened by its key. */
  permission: Permission | 'client'
  params?: z.ZodType
  query?: z.ZodType
  body?: z.ZodType
  /** By status; null for an empty body. Checked in tests. */
  responses: Record<number, z.ZodType | null>
  // biome-ignore lint/suspicious/noExplicitAny: the list holds routes of all shapes; `route` checks each one
  handle(input: RouteInput<any, any, any>): Promise<Reply>
}

type Parsed<T> = T extends z.ZodType ? z.infer<T> : undefined

/** Ties a handler's input to the schemas beside it. */
export function route<
  P extends z.ZodType | undefined,
  Q extends z.ZodType | undefined,
  B extends z.ZodType | undefined,
>(
  definition: Omit<Route, 'handle' | 'params' | 'query' | 'body'> & {
    params?: P
    query?: Q
    body?: B
    handle(input: RouteInput<Parsed<P>, Parsed<Q>, Parsed<B>>): Promise<Reply>
  },
): Route {
  return definition as Route
}

/** What a request's secret is judged by. */
export type Login = Pick<MountOptions, 'authenticator' | 'refusals'>

export interface MountOptions {
  authenticator: Authenticator
  refusals: Refusals
  /** Streams and waits end when the server stops. */
  stopping: AbortSignal
  /** In tests: an answer that is not as declared is a 500. */
  checkResponses: boolean
}

/** Each request: authenticate, authorise, parse, call, answer. */
export function mount(routes: Route[], options: MountOptions): Router {
  const router = new Router({ prefix: '/api' })
  for (const item of routes) {
    router[item.method](item.path, async (ctx: Context & { params: Record<string, string> }) => {
      const caller = await authenticate(ctx, item.permission, options)
      const reply = await item.handle({
        ...caller,
        params: parseParams(item.params, ctx.params),
        query: parse(item.query, ctx.query, 'query'),
        body: parseBody(item, ctx),
        header: (name) => ctx.headers[name]?.toString(),
        gone: AbortSignal.any([goneSignal(ctx), options.stopping]),
      } as RouteInput<unknown, unknown, unknown>)
      if (options.checkResponses) checkResponse(item, reply)
      ctx.status = reply.status
      for (const [name, value] of Object.entries(reply.headers ?? {})) ctx.set(name, value)
      ctx.body = reply.body ?? null
    })
  }
  return router
}

/** Who calls, if they may. Throws UNAUTHORIZED, FORBIDDEN. */
export async function authenticate(
  ctx: Context,
  permission: Route['permission'],
  { authenticator, refusals }: Login,
): Promise<{ principal: Principal } | { client: ClientCredential }> {
  const secret = /^Bearer +(\S+)$/i.exec(ctx.get('authorization'))?.[1]
  if (permission === 'client') {
    const client = secret?.startsWith('sbk_') ? await authenticator.clientByKey(secret) : undefined
    if (!client) throw unauthorized(secret, 'client key', 'sbk_…')
    if (client.disabled) {
      refusals.login(client.id, `client ${client.id} is disabled`)
      throw new AppError('CLIENT_DISABLED', `Client ${client.id} is disabled.`)
    }
    return { client }
  }
  const principal = secret?.startsWith('sbt_') ? await authenticator.principal(secret) : undefined
  if (!principal) throw unauthorized(secret, 'API token', 'sbt_…')
  authorize(principal, permission)
  return { principal }
}

const unauthorized = (secret: string | undefined, what: string, form: string): AppError =>
  new AppError(
    'UNAUTHORIZED',
    secret ? `The ${what} is not valid.` : `Give your ${what}: Authorization: Bearer ${form}`,
  )

function parse(schema: z.ZodType | undefined, value: unknown, at: string): unknown {
  if (!schema) return undefined
  const parsed = schema.safeParse(value)
  if (!parsed.success) throw invalidInput(parsed.error, at)
  return parsed.data
}

/** An id in the path that cannot be one names nothing: 404, not 400. */
function parseParams(schema: z.ZodType | undefined, params: Record<string, string>): unknown {
  if (!schema) return undefined
  const parsed = schema.safeParse(params)
  if (!parsed.success) {
    const key = parsed.error.issues[0]?.path[0] as string
    // PUT /actions/{name} makes the name; everything else looks it up.
    throw new AppError('NOT_FOUND', `${key} ${JSON.stringify(params[key])} ${parsed.error.issues[0]?.message}.`)
  }
  return parsed.data
}

function parseBody(item: Route, ctx: Context): unknown {
  if (!item.body) return undefined
  const { body = {} } = ctx.state as { body?: unknown }
  const fault = jsonFault(body)
  if (fault) throw new AppError('INVALID_INPUT', `The body ${fault}.`, [{ path: 'body', message: fault }])
  return parse(item.body, body, 'body')
}

function goneSignal(ctx: Context): AbortSignal {
  const controller = new AbortController()
  ctx.res.once('close', () => controller.abort())
  return controller.signal
}

function checkResponse(item: Route, reply: Reply): void {
  const schema = item.responses[reply.status]
  if (schema === undefined)
    throw new Error(`${item.method} ${item.path} answers ${reply.status}, which it does not declare`)
  if (schema === null) return
  const parsed = schema.safeParse(reply.body)
  if (!parsed.success)
    throw new Error(`${item.method} ${item.path} answers what it does not declare: ${parsed.error.message}`)
}
