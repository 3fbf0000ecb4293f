import { STATUS_CODES } from 'node:http'
import type { Context, Next } from 'koa'
import type { Logger } from 'pino'
import { asAppError } from '../control/as-app-error.ts'
import { AppError, ERROR_STATUS, type InputFault, LimitError } from '../schemas/errors.ts'
import { withoutSecrets } from '../schemas/secrets.ts'
import { rateLimitHeaders } from './rate-limit.ts'

/** What the router leaves: no such path, or not with this method (its Allow header says which). */
const NO_ROUTE = [404, 405, 501]

/** Answers every error as RFC 9457 problem details; what is not ours to show is logged whole and answered as a bare 500. */
export function problems(log: Logger) {
  return async (ctx: Context, next: Next): Promise<void> => {
    try {
      await next()
      if (NO_ROUTE.includes(ctx.status) && ctx.body == null) {
        throw new AppError('NOT_FOUND', `There is no ${ctx.method} ${ctx.path}.`)
      }
    } catch (error) {
      const problem = asAppError(error)
      if (problem.code === 'INTERNAL')
        log.error({ err: error, requestId: ctx.state.requestId, method: ctx.method, path: ctx.path }, 'request failed')
      answer(ctx, problem)
    }
  }
}

/** What was sent as a path or as a field's name comes back here, and may be shown where the caller shows errors. */
const presentable = ({ path, message }: InputFault): InputFault => ({
  path: withoutSecrets(path),
  message: withoutSecrets(message),
})

/** Node goes by the first of several of these; a proxy in front may have gone by the last. */
const ONCE = new Set(['authorization', 'content-type', 'cookie', 'host', 'origin'])

/** Throws INVALID_INPUT for what Node takes and HTTP/1.1 does not, or where two readers would disagree on what is meant. */
export function refuseAmbiguous({ req: { rawHeaders, headers, httpVersion } }: Context, next: Next): Promise<void> {
  if (httpVersion === '0.9') throw ambiguous('version', 'is older than HTTP/1.0')
  if (httpVersion === '1.1' && headers.host === undefined) throw ambiguous('host', 'is missing')
  const seen = new Set<string>()
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] as string).toLowerCase()
    if (!ONCE.has(name)) continue
    if (seen.has(name)) throw ambiguous(name, 'comes twice')
    seen.add(name)
  }
  return next()
}

const ambiguous = (path: string, message: string): AppError =>
  new AppError('INVALID_INPUT', `In the head of the request ${path} ${message}.`, [{ path, message }])

/** RFC 9457; `instance`: the path that was asked for. */
export function problemDetails({ code, message, faults, extensions }: AppError, instance?: string) {
  const status = ERROR_STATUS[code]
  return {
    type: 'about:blank',
    title: STATUS_CODES[status] ?? code,
    status,
    code,
    detail: withoutSecrets(message),
    ...(instance === undefined ? {} : { instance: withoutSecrets(instance) }),
    ...(faults ? { errors: faults.map(presentable) } : {}),
    ...extensions,
  }
}

function answer(ctx: Context, problem: AppError): void {
  const details = problemDetails(problem, ctx.path)
  const { status } = details
  ctx.status = status
  ctx.body = details
  ctx.type = 'application/problem+json'
  if (status === 401) ctx.set('WWW-Authenticate', 'Bearer')
  if (status === 503) ctx.set('Retry-After', '1')
  if (problem instanceof LimitError) {
    ctx.set('Retry-After', String(problem.retryAfterSeconds))
    ctx.set(rateLimitHeaders(problem.limits))
  }
}
