import type { IncomingMessage } from 'node:http'
import Router from '@koa/router'
import type { Context } from 'koa'
import type { z } from 'zod'
import type { Actor, Origin } from '../control/access/actor.ts'
import type { ClientCredential } from '../control/access/authenticate.ts'
import type { Control } from '../control/control.ts'
import { AppError, invalidInput } from '../schemas/errors.ts'
import { jsonFault } from '../schemas/json.ts'
import type { Settings } from '../schemas/settings.ts'
import { type Admission, admit, type Caller, fromOf, type Gate, noteForbidden } from './admission.ts'
import { leaveUnread, readJson } from './body.ts'
import { sessionSecret, setSessionCookie } from './session-cookie.ts'

/** What a handler gets: parsed and authorised. */
export interface RouteInput<Params, Query, Body> {
  params: Params
  query: Query
  body: Body
  /** Who asks; not where the permission is `client` or `anyone`. */
  actor: Actor
  /** Only where the permission is `client`. */
  client: ClientCredential
  /** Where the request came from, whoever asks. */
  from: Origin
  /** The secret in the session's cookie, if there is one. */
  session: string | undefined
  /** Header values by lower-case name. */
  header(name: string): string | undefined
  /** Aborted when the caller is gone, its token ends or the server stops. Only who waits or streams asks for it. */
  readonly gone: AbortSignal
}

export interface Reply {
  status: number
  headers?: Record<string, string>
  body?: unknown
  /** The secret that the session's cookie has from now on; null: none. */
  session?: string | null
}

/** A route as data: documents, tests and the router read the same list. */
export interface Route {
  method: 'get' | 'post' | 'put' | 'patch' | 'delete'
  /** Below /api, in @koa/router's syntax. */
  path: string
  summary: string
  /** What a principal needs; `client`: a client's own door, opened by its key; `anyone`: nobody is asked who he is. */
  permission: Gate
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

type BodyLimits = Pick<Settings, 'HTTP_MAX_BODY_BYTES' | 'HTTP_MAX_LOGIN_BODY_BYTES'>

export interface MountOptions {
  control: Admission & Pick<Control, 'logins'>
  limits: BodyLimits
  /** Told of each request that was let in. */
  admitted(request: IncomingMessage): void
  /** Streams and waits end when the server stops. */
  stopping: AbortSignal
  /** In tests: an answer that is not as declared is a 500. */
  checkResponses: boolean
}

/** A router for each first part of a path: a request is not compared with the routes behind the one that it finds its own in. */
export const mount = (routes: Route[], options: MountOptions): Router[] =>
  [...Map.groupBy(routes, ({ path }) => path.split('/')[1]).values()].map((those) => routerOf(those, options))

/** Each request: authenticate, authorise, read and parse, call, answer. */
function routerOf(routes: Route[], options: MountOptions): Router {
  const router = new Router({ prefix: '/api' })
  for (const item of routes) {
    router[item.method](item.path, async (ctx: Context & { params: Record<string, string> }) => {
      const caller = await admit(ctx, item.permission, options.control).catch((error: unknown) => {
        leaveUnread(ctx, options.limits.HTTP_MAX_LOGIN_BODY_BYTES)
        throw error
      })
      if (item.permission !== 'anyone') options.admitted(ctx.req)
      const reply = await answered(ctx, item, caller, options)
      if (options.checkResponses) checkResponse(item, reply)
      ctx.status = reply.status
      for (const [name, value] of Object.entries(reply.headers ?? {})) ctx.set(name, value)
      if (reply.session !== undefined) setSessionCookie(ctx, reply.session)
      ctx.body = reply.body ?? null
    })
  }
  return router
}

async function answered(
  ctx: Context & { params: Record<string, string> },
  item: Route,
  caller: Caller,
  { control, stopping, limits }: MountOptions,
): Promise<Reply> {
  try {
    const params = parseParams(item.params, ctx.params)
    const query = parseQuery(item.query, ctx.query)
    const body = await parseBody(item, ctx, limits)
    const gone = (): AbortSignal => AbortSignal.any([goneSignal(ctx, caller, control.logins), stopping])
    return await item.handle(new Input(ctx, caller, { params, query, body }, gone))
  } catch (error) {
    noteForbidden(ctx, caller, control, error)
    throw error
  }
}

/** What few routes ask for is worked out when they do. */
class Input implements RouteInput<unknown, unknown, unknown> {
  readonly params: unknown
  readonly query: unknown
  readonly body: unknown
  readonly actor: Actor
  readonly client: ClientCredential
  readonly #ctx: Context
  readonly #gone: () => AbortSignal

  constructor(ctx: Context, caller: Caller, parsed: Pick<Input, 'params' | 'query' | 'body'>, gone: () => AbortSignal) {
    const { actor, client } = caller as { actor: Actor; client: ClientCredential }
    this.params = parsed.params
    this.query = parsed.query
    this.body = parsed.body
    this.actor = actor
    this.client = client
    this.#ctx = ctx
    this.#gone = gone
  }

  readonly header = (name: string): string | undefined => this.#ctx.headers[name]?.toString()

  get from(): Origin {
    return fromOf(this.#ctx)
  }
  get session(): string | undefined {
    return sessionSecret(this.#ctx)
  }
  get gone(): AbortSignal {
    return this.#gone()
  }
}

function parse(schema: z.ZodType, value: unknown, at: string): unknown {
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

/** What PostgreSQL cannot keep is refused wherever it comes in. */
function parseQuery(schema: z.ZodType | undefined, query: Context['query']): unknown {
  if (!schema) return undefined
  const faults = Object.entries(query).flatMap(([path, value]) => {
    const message = jsonFault(value)
    return message ? [{ path, message }] : []
  })
  const [first] = faults
  if (first) throw new AppError('INVALID_INPUT', `The query is not valid: ${first.path} ${first.message}.`, faults)
  return parse(schema, query, 'query')
}

/** A body that the route has no use for is not read. */
async function parseBody(item: Route, ctx: Context, limits: BodyLimits): Promise<unknown> {
  if (!item.body) return undefined
  const limit = item.permission === 'anyone' ? limits.HTTP_MAX_LOGIN_BODY_BYTES : limits.HTTP_MAX_BODY_BYTES
  const body = await readJson(ctx, limit)
  return parse(item.body, body === undefined ? {} : body, 'body')
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
