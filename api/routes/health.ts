import Router from '@koa/router'

/** Each dependency: how to ask it. Rejects when it does not answer. */
export type HealthChecks = Record<string, () => Promise<unknown>>

/** Outside /api and without login: for load balancers and container engines. */
export function healthRoutes(checks: HealthChecks, isReady: () => boolean): Router {
  const router = new Router()

  router.get('/health/live', (ctx) => {
    ctx.body = { ok: true }
  })

  router.get('/health/ready', async (ctx) => {
    const { ok } = await runChecks(checks)
    const ready = ok && isReady()
    ctx.status = ready ? 200 : 503
    ctx.body = { ok: ready }
  })

  router.get('/health', async (ctx) => {
    const { ok, results } = await runChecks(checks)
    ctx.status = ok ? 200 : 503
    ctx.body = { ok, checks: results, at: new Date().toISOString() }
  })

  return router
}

async function runChecks(checks: HealthChecks) {
  const entries = await Promise.all(
    Object.entries(checks).map(async ([name, check]) => {
      const start = performance.now()
      const result = await check().then(
        () => ({ ok: true, milliseconds: Math.round(performance.now() - start) }),
        (error: Error) => ({ ok: false, reason: error.message }),
      )
      return [name, result] as const
    }),
  )
  return { ok: entries.every(([, result]) => result.ok), results: Object.fromEntries(entries) }
}
