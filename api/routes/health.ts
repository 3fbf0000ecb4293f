import Router from '@koa/router'
import type { Logger } from 'pino'

/**
 * What is asked: rejects when it does not answer, else answers with what there is to show. `degraded` calls it out, and leaves
 * readiness alone: another node would be no better.
 */
export type HealthChecks = Record<string, () => Promise<{ degraded?: boolean; [fact: string]: unknown }>>

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
    const degraded = Object.values(results).some((result) => result.degraded === true)
    ctx.status = ok ? 200 : 503
    ctx.body = { ok, degraded, checks: results, at: new Date().toISOString() }
  })

  return router
}

/** The cause of a failure names hosts and databases: it is logged, not answered. */
async function runChecks(checks: HealthChecks, log: Logger) {
  const entries = await Promise.all(
    Object.entries(checks).map(async ([name, check]) => {
      const start = performance.now()
      const result = await check().then(
        (facts) => ({ ok: true, milliseconds: Math.round(performance.now() - start), ...facts }),
        (error: Error): { ok: boolean; degraded?: boolean } => {
          log.warn({ dependency: name, reason: error.message }, 'dependency does not answer')
          return { ok: false }
        },
      )
      return [name, result] as const
    }),
  )
  return { ok: entries.every(([, result]) => result.ok), results: Object.fromEntries(entries) }
}
