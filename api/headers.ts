import type { Middleware } from 'koa'
import type { Settings } from '../schemas/settings.ts'

/** With every answer (OWASP REST Security Cheat Sheet): none is a page, none is to be kept, framed, guessed at or embedded. */
export const ANSWER_HEADERS = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}

/** These, Strict-Transport-Security over TLS, and `ctx.state.tls`: whether the caller came over TLS. */
export function answerHeaders(settings: Pick<Settings, 'HTTP_TLS_PROXY' | 'HTTP_HSTS_SECONDS'>): Middleware {
  const { HTTP_TLS_PROXY: proxied, HTTP_HSTS_SECONDS: seconds } = settings
  const plain = new Map(Object.entries(ANSWER_HEADERS))
  const overTls = new Map(plain)
  if (seconds > 0) overTls.set('Strict-Transport-Security', `max-age=${seconds}`)
  return (ctx, next) => {
    ctx.state.tls = proxied || ctx.secure
    ctx.res.setHeaders(ctx.state.tls ? overTls : plain)
    return next()
  }
}

const CORS = {
  methods: 'GET, POST, PUT, PATCH, DELETE',
  headers: 'Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-Id',
  exposed: 'Idempotent-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id',
  maxAgeSeconds: '600',
}

/**
 * Lets pages of these origins call the API with a token. Never with the cookie: Access-Control-Allow-Credentials is not said.
 * All others are told nothing, so their browser keeps the answer from them.
 */
export function crossOrigin(allowed: readonly string[]): Middleware {
  return (ctx, next) => {
    if (allowed.length === 0) return next()
    ctx.vary('Origin')
    const origin = ctx.get('origin')
    if (!allowed.includes(origin)) return next()
    ctx.set('Access-Control-Allow-Origin', origin)
    const preflight = ctx.method === 'OPTIONS' && ctx.get('access-control-request-method') !== ''
    if (!preflight) {
      ctx.set('Access-Control-Expose-Headers', CORS.exposed)
      return next()
    }
    ctx.set('Access-Control-Allow-Methods', CORS.methods)
    ctx.set('Access-Control-Allow-Headers', CORS.headers)
    ctx.set('Access-Control-Max-Age', CORS.maxAgeSeconds)
    ctx.status = 204
    return Promise.resolve()
  }
}
