import { createHmac } from 'node:crypto'
import type { Context } from 'koa'
import { sameHash } from '../control/access/secrets.ts'

/** Over TLS the browser itself ties the name to this host, `/` and Secure [RFC 6265bis, 4.1.3.2]. */
const COOKIE = {
  plain: { name: 'signalbox', attributes: 'Path=/api; HttpOnly; SameSite=Strict' },
  secure: { name: '__Host-signalbox', attributes: 'Path=/; Secure; HttpOnly; SameSite=Strict' },
}

const cookieOf = (ctx: Context) => (ctx.state.tls ? COOKIE.secure : COOKIE.plain)

/** The secret of the session that the browser says it has. */
export const sessionSecret = (ctx: Context): string | undefined => {
  const value = ctx.cookies.get(cookieOf(ctx).name)
  return value?.startsWith('sbs_') ? value : undefined
}

/** Null: the browser forgets it. Without Max-Age it forgets it when it is closed; how long it is good for is the server's. */
export function setSessionCookie(ctx: Context, secret: string | null): void {
  const { name, attributes } = cookieOf(ctx)
  ctx.set('Set-Cookie', `${name}=${secret ?? ''}; ${attributes}${secret === null ? '; Max-Age=0' : ''}`)
}

/** What only a page can say that was allowed to read an answer of this session. Not kept: it follows from the secret. */
export const csrfToken = (secret: string): string => createHmac('sha256', secret).update('csrf').digest('base64url')

const READING = ['GET', 'HEAD', 'OPTIONS']
type Headers = Pick<Context, 'method' | 'get'>

/** What the browser says of the page that makes it send this; undefined: it says nothing, or is no browser. */
function fromOwnPage(request: Headers): boolean | undefined {
  const site = request.get('sec-fetch-site')
  // No page can set it. `none`: somebody typed the address, which sends nothing but GET.
  if (site !== '') return site === 'same-origin' || (site === 'none' && READING.includes(request.method))
  const origin = request.get('origin')
  if (origin === '') return undefined
  // A proxy in front may have changed the scheme; the host is what tells pages apart.
  return URL.canParse(origin) && new URL(origin).host === request.get('host').toLowerCase()
}

/** Why a request that carries the cookie is not the console's own, or undefined if it is. */
export function crossSiteFault(request: Headers, secret: string): string | undefined {
  const own = fromOwnPage(request)
  if (own === false) return 'it comes from another page'
  if (READING.includes(request.method)) return undefined
  if (own === undefined) return 'neither Sec-Fetch-Site nor Origin says where it comes from'
  const given = Buffer.from(request.get('x-csrf-token'))
  return sameHash(given, Buffer.from(csrfToken(secret)))
    ? undefined
    : 'X-CSRF-Token is missing, or is not of this session'
}

/** Another site must not log a browser in either, as somebody of its choice. */
export const isFromAnotherPage = (request: Headers): boolean => fromOwnPage(request) === false
