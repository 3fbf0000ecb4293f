import Router from '@koa/router'
import type { Logger } from 'pino'

/** Each dependency: how to ask it. Rejects when it does not answer. */
export type HealthChecks = Record<string, () => Promise<unknown>>

/** Outside /api and without login: for load balancers and container engines. */
export function healthRoutes(checks: HealthChecks, isReady: () => boolean, log: Logger): Router {
  const router = new Router()

  router.get('/health/live', (ctx) => {
    ctx.body = { ok: true }
  })

  router.get('/health/ready', async (ctx) => {
    const { ok } = await runChecks(checks, log)
    const ready = ok && isReady()
    ctx.status = ready ? 200 : 503
    ctx.body = { ok: ready }
  })

  router.get('/health', async (ctx) => {
    const { ok, results } = await runChecks(checks, log)
    ctx.status = ok ? 200 : 503
    ctx.body = { ok, checks: results, at: new Date().toISOString() }
  })

  return router
}

/** The cause of a failure names hosts and databases: it is logged, not answered. */
async function runChecks(checks: HealthChecks, log: Logger) {
  const entries = await Promise.all(
    Object.entries(checks).map(async ([name, check]) => {
      const start = performance.now()
      const result = await check().then(
        () => ({ ok: true, milliseconds: Math.round(performance.now() - start) }),
        (error: Error) => {
          log.warn({ dependency: name, reason: error.message }, 'dependency does not answer')
          return { ok: false }
        },
      )
      return [name, result] as const
    }),
  )
  return { ok: entries.every(([, result]) => result.ok), results: Object.fromEntries(entries) }
}
