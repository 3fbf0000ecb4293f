import Router from '@koa/router'
import { type Gauge, Registry as PrometheusRegistry } from 'prom-client'
import type { Family, Registry } from '../../control/metrics/registry.ts'
import { type Admission, admit } from '../admission.ts'

/** Outside /api, in Prometheus' text format. `login`: an API token is asked for. */
export function metricsRoutes(metrics: Registry, login: Admission | undefined): Router {
  const router = new Router()
  router.get('/metrics', async (ctx) => {
    if (login) await admit(ctx, 'metrics:read', login)
    const prometheus = new PrometheusRegistry()
    for (const family of metrics.families()) prometheus.registerMetric(asMetric(family))
    ctx.body = await prometheus.metrics()
    ctx.set('Content-Type', prometheus.contentType)
  })
  return router
}

/**
 * A family as prom-client's registry reads it. Its own counters and histograms look their labels up at each increment, a
 * hundred times the cost; the registry asks a metric for nothing but its name and `get` (registry.js, getMetricsAsString).
 */
function asMetric({ name, help, type, read }: Family): Gauge {
  const get = async () => ({
    name,
    help,
    type,
    aggregator: 'sum',
    values: (await read()).map(({ suffix, ...sample }) => ({ ...sample, metricName: name + (suffix ?? '') })),
  })
  return { name, get } as unknown as Gauge
}
