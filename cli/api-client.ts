import { Problem } from '../schemas/errors.ts'
import { parseJson } from '../schemas/json.ts'
import { RefusedError, UnreachableError, UsageError } from './failures.ts'

export interface ApiTarget {
  /** Where the server is, without /api. */
  url: string
  token: string | undefined
}

/** Calls the API: method, path below /api, body. Throws RefusedError or UnreachableError. */
export type Api = <T>(
  method: string,
  path: string,
  body?: unknown,
  options?: { headers?: Record<string, string>; signal?: AbortSignal },
) => Promise<T>

/** Throws UsageError if the target makes no sense. */
export function connectApi(target: ApiTarget): Api {
  return async <T>(
    method: string,
    path: string,
    body?: unknown,
    { headers, signal }: { headers?: Record<string, string>; signal?: AbortSignal } = {},
  ): Promise<T> => {
    const init = body === undefined ? {} : { body: JSON.stringify(body) }
    const response = await fetchApi(target, path, {
      method,
      signal,
      headers: { 'content-type': 'application/json', ...headers },
      ...init,
    })
    const text = await response.text().catch((cause) => {
      throw new UnreachableError(`${target.url} went away in the middle of its answer`, { maySent: true, cause })
    })
    if (text === '' && response.ok) return undefined as T
    const answer = parseJson(text)
    if (answer === undefined) throw notSignalbox(target)
    return answer as T
  }
}

/** The answer to a request, its body still to be read. Throws RefusedError for any status but 2xx, UnreachableError. */
export async function fetchApi(target: ApiTarget, path: string, init: RequestInit): Promise<Response> {
  const { url, token } = target
  if (!URL.canParse(url) || !/^https?:/.test(url)) {
    throw new UsageError(`--url: ${url} is no http:// or https:// address`)
  }
  if (!token) throw new UsageError('give an API token: --token, or better SIGNALBOX_TOKEN, which no process list shows')
  const headers = { ...init.headers, authorization: `Bearer ${token}` }
  const response = await fetch(`${url.replace(/\/+$/, '')}/api${path}`, { ...init, headers }).catch((cause) => {
    if (init.signal?.aborted) throw cause
    throw unreachable(url, cause)
  })
  if (response.ok) return response
  const problem = Problem.safeParse(parseJson(await response.text().catch(() => '')))
  throw problem.success ? new RefusedError(problem.data) : notSignalbox(target, response.status)
}

/** Nobody took the connection: then nothing was sent. */
const NEVER_SENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
])

function unreachable(url: string, error: unknown): UnreachableError {
  const cause = (error as { cause?: { code?: string; message?: string } }).cause
  const code = cause?.code ?? ''
  const why = code || cause?.message || (error as Error).message
  return new UnreachableError(`no server answers at ${url} (${why})`, { maySent: !NEVER_SENT.has(code), cause: error })
}

function notSignalbox({ url }: ApiTarget, status?: number): UnreachableError {
  const answered = status === undefined ? 'something else' : `status ${status}`
  return new UnreachableError(`what answers at ${url} is not Signalbox (${answered})`, { maySent: true })
}

/** A path below /api whose parameters are escaped: path`/clients/${id}`. */
export const path = (parts: TemplateStringsArray, ...values: string[]): string =>
  String.raw({ raw: parts }, ...values.map(encodeURIComponent))

/** Adds what is defined as a query. */
export function withQuery(base: string, query: Record<string, string | number | boolean | undefined>): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined)
  if (given.length === 0) return base
  return `${base}?${new URLSearchParams(given.map(([key, value]): [string, string] => [key, String(value)]))}`
}

export interface Listing<T> {
  items: T[]
  nextCursor: string | null
}

const PAGE = 200

/** Up to `limit` items, page by page; `nextCursor` is null if these are all. */
export async function readList<T>(
  api: Api,
  base: string,
  query: Record<string, string | undefined>,
  limit: number,
): Promise<Listing<T>> {
  const items: T[] = []
  let cursor: string | undefined
  for (;;) {
    const size = Math.min(PAGE, limit - items.length)
    const page = await api<Listing<T>>('GET', withQuery(base, { ...query, limit: size, cursor }))
    items.push(...page.items)
    if (page.nextCursor === null || items.length >= limit) return { items, nextCursor: page.nextCursor }
    cursor = page.nextCursor
  }
}
