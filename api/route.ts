import Router from '@koa/router'
import type { Context } from 'koa'
import type { z } from 'zod'
import { type Actor, type Origin, plainAddress } from '../control/access/actor.ts'
import type { ClientCredential } from '../control/access/authenticate.ts'
import { wrongSecret } from '../control/access/login-throttle.ts'
import { authorize, type Permission } from '../control/access/permissions.ts'
import type { Noticed } from '../control/access/security-log.ts'
import type { Control } from '../control/control.ts'
import { AppError, invalidInput } from '../schemas/errors.ts'
import { jsonFault } from '../schemas/json.ts'

/** What a handler gets: parsed and authorised. */
export interface RouteInput<Params, Query, Body> {
  params: Params
  query: Query
  body: Body
  /** Who asks; where the permission is a principal's. */
  actor: Actor
  /** Only where the permission is `client`. */
  client: ClientCredential
  /** Only where the permission is `anyone`. */
  origin: Origin
  /** Header values by lower-case name. */
  header(name: string): string | undefined
  /** Aborted when the caller is gone, its token ends or the server stops. Only who waits or streams asks for it. */
  readonly gone: AbortSignal
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
  /** What a principal needs; `client`: a client's own door, opened by its key; `anyone`: the body has what it takes. */
  permission: Permission | 'client' | 'anyone'
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

/** What a request is let in by, or not. */
export type Admission = Pick<Control, 'authenticator' | 'loginThrottle' | 'refusals' | 'securityLog'>

export interface MountOptions {
  control: Admission & Pick<Control, 'logins'>
  /** Streams and waits end when the server stops. */
  stopping: AbortSignal
  /** In tests: an answer that is not as declared is a 500. */
  checkResponses: boolean
}

type Caller = { actor: Actor } | { client: ClientCredential } | { origin: Origin }

/** Each request: authenticate, authorise, parse, call, answer. */
export function mount(routes: Route[], options: MountOptions): Router {
  const router = new Router({ prefix: '/api' })
  for (const item of routes) {
    router[item.method](item.path, async (ctx: Context & { params: Record<string, string> }) => {
      const caller = await admit(ctx, item.permission, options.control)
      const reply = await answered(ctx, item, caller, options)
      if (options.checkResponses) checkResponse(item, reply)
      ctx.status = reply.status
      for (const [name, value] of Object.entries(reply.headers ?? {})) ctx.set(name, value)
      ctx.body = reply.body ?? null
    })
  }
  return router
}

async function answered(
  ctx: Context & { params: Record<string, string> },
  item: Route,
  caller: Caller,
  { control, stopping }: MountOptions,
): Promise<Reply> {
  try {
    return await item.handle({
      ...caller,
      params: parseParams(item.params, ctx.params),
      query: parse(item.query, ctx.query, 'query'),
      body: parseBody(item, ctx),
      header: (name) => ctx.headers[name]?.toString(),
      get gone() {
        return AbortSignal.any([goneSignal(ctx, caller, control.logins), stopping])
      },
    } as RouteInput<unknown, unknown, unknown>)
  } catch (error) {
    noteForbidden(ctx, caller, control, error)
    throw error
  }
}

/** Who calls, if they may. Throws UNAUTHORIZED, RATE_LIMIT, CLIENT_DISABLED, FORBIDDEN. */
export async function admit(ctx: Context, permission: Route['permission'], control: Admission): Promise<Caller> {
  const caller = await authenticate(ctx, permission, control)
  try {
    if ('actor' in caller) authorize(caller.actor.principal, permission as Permission)
  } catch (error) {
    noteForbidden(ctx, caller, control, error)
    throw error
  }
  return caller
}

const FORBIDDEN = ['FORBIDDEN', 'ACTION_NOT_ALLOWED']

function noteForbidden(ctx: Context, caller: Caller, { securityLog }: Admission, error: unknown): void {
  if (!(error instanceof AppError) || !FORBIDDEN.includes(error.code)) return
  const detail = `${ctx.method} ${ctx.path}: ${error.message}`
  securityLog.note({ kind: 'forbidden_action', ...whoIs(caller), address: addressOf(ctx), detail })
}

function whoIs(caller: Caller): Pick<Noticed, 'subject' | 'principal' | 'clientId'> {
  if ('actor' in caller) return { subject: caller.actor.principal.name, principal: caller.actor.principal.name }
  if ('client' in caller) return { subject: caller.client.id, clientId: caller.client.id }
  return { subject: caller.origin.address }
}

const addressOf = (ctx: Context): string => plainAddress(ctx.req.socket.remoteAddress)

/** A wrong secret is a failure of its address; a right one is let in whatever went before. */
async function authenticate(
  ctx: Context,
  permission: Route['permission'],
  { authenticator, loginThrottle, refusals, securityLog }: Admission,
): Promise<Caller> {
  const origin = { address: addressOf(ctx), requestId: ctx.state.requestId }
  if (permission === 'anyone') return { origin }
  const secret = /^Bearer +(\S+)$/i.exec(ctx.get('authorization'))?.[1]
  const [what, form] = permission === 'client' ? ['client key', 'sbk_'] : ['API token', 'sbt_']
  if (secret === undefined) {
    throw new AppError('UNAUTHORIZED', `Give your ${what}: Authorization: Bearer ${form}…`)
  }
  const { address } = origin
  if (!secret.startsWith(form)) {
    securityLog.note({ kind: 'bad_key', subject: address, address, detail: `no ${what} at ${ctx.method} ${ctx.path}` })
  } else if (permission === 'client') {
    const client = await authenticator.clientByKey(secret, address)
    if (client?.disabled) {
      refusals.login(client.id, `client ${client.id} is disabled`)
      throw new AppError('CLIENT_DISABLED', `Client ${client.id} is disabled.`)
    }
    if (client) return { client }
  } else {
    const principal = await authenticator.principal(secret, address)
    if (principal) return { actor: { principal, ...origin } }
  }
  throw wrongSecret(`The ${what} is not valid.`, await loginThrottle.failed(address))
}

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

function goneSignal(ctx: Context, caller: Caller, logins: Control['logins']): AbortSignal {
  // Whoever left during the login is gone already, and nothing would say so any more.
  if (ctx.res.closed) return AbortSignal.abort()
  const controller = new AbortController()
  const unwatch = 'actor' in caller ? logins.watch(caller.actor.principal, () => controller.abort()) : () => undefined
  ctx.res.once('close', () => {
    unwatch()
    controller.abort()
  })
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
