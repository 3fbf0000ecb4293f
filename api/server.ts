import { randomUUID } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type Router from '@koa/router'
import Koa from 'koa'
import type { Logger } from 'pino'
import { bind } from '../control/bind.ts'
import type { Certificate } from '../control/certificate.ts'
import type { Control } from '../control/control.ts'
import { Id } from '../schemas/ids.ts'
import { plainHost } from '../schemas/settings.ts'
import { endsWithoutBody } from './body.ts'
import { createConnections } from './connections.ts'
import { answerHeaders, crossOrigin } from './headers.ts'
import { problems, refuseAmbiguous } from './problem.ts'
import { mount, type Route } from './route.ts'
import { accessRoutes } from './routes/access.ts'
import { actionRoutes } from './routes/actions.ts'
import { alertRoutes } from './routes/alerts.ts'
import { auditRoutes } from './routes/audit.ts'
import { clientRoutes } from './routes/clients.ts'
import { commandRoutes } from './routes/commands.ts'
import { enrolmentRoutes } from './routes/enrolments.ts'
import { eventRoutes } from './routes/events.ts'
import { type HealthChecks, healthRoutes } from './routes/health.ts'
import { httpAgentRoutes } from './routes/http-agent.ts'
import { metricsRoutes } from './routes/metrics.ts'
import { sessionRoutes } from './routes/session.ts'
import { zoneRoutes } from './routes/zones.ts'

export interface Api {
  /** With a certificate also over TLS. */
  listen(certificate: Certificate | undefined): Promise<{ http: number; https: number | undefined }>
  /** Takes no more connections and gives open requests SHUTDOWN_SECONDS to end. */
  stop(): Promise<void>
}

export interface ApiDeps {
  control: Control
  log: Logger
  health: HealthChecks
  checkResponses: boolean
}

export const apiRoutes = (control: Control): Route[] => [
  ...commandRoutes(control),
  ...clientRoutes(control),
  ...actionRoutes(control),
  ...zoneRoutes(control),
  ...eventRoutes(control),
  ...httpAgentRoutes(control),
  ...accessRoutes(control),
  ...enrolmentRoutes(control),
  ...alertRoutes(control),
  ...auditRoutes(control),
  ...sessionRoutes(control),
]

/** HTTP in: Koa with the routes of ./routes. */
export function createApi({ control, log, health, checkResponses }: ApiDeps): Api {
  const { settings } = control
  let ready = false
  const stopping = new AbortController()
  const koa = new Koa()
  koa.silent = true
  koa.on('error', (error: Error) => log.debug({ reason: error.message }, 'connection error'))
  koa.use(async (ctx, next) => {
    const given = ctx.get('x-request-id')
    ctx.state.requestId = given !== '' && Id.safeParse(given).success ? given : randomUUID()
    ctx.set('X-Request-Id', ctx.state.requestId)
    await next()
    if (endsWithoutBody(ctx)) ctx.set('Connection', 'close')
  })
  koa.use(answerHeaders(settings))
  koa.use(crossOrigin(settings.HTTP_ALLOWED_ORIGINS))
  koa.use(problems(log))
  koa.use(refuseAmbiguous)
  koa.use(healthRoutes(health, () => ready, log).routes())
  koa.use(metricsRoutes(control.metrics, settings.METRICS_LOGIN ? control : undefined).routes())
  const connections = createConnections(settings)
  const routers = mount(apiRoutes(control), {
    control,
    limits: settings,
    admitted: connections.admitted,
    stopping: stopping.signal,
    checkResponses,
  })
  for (const router of routers) koa.use(router.routes())
  // What none of them has answered: it goes by the routes that all of them have compared.
  koa.use((routers[0] as Router).allowedMethods())

  const servers: Server[] = []

  return {
    async listen(certificate) {
      const plain = createServer(connections.options)
      connections.guard(plain, koa.callback())
      servers.push(plain)
      const http = await bind(plain, {
        host: plainHost(settings, 'HTTP_HOST'),
        port: settings.HTTP_PORT,
        setting: 'HTTP_PORT',
      })
      ready = true
      if (!certificate) return { http, https: undefined }
      const tls = createTlsServer({ ...connections.options, ...certificate.options })
      connections.guard(tls, koa.callback())
      servers.push(tls)
      certificate.renews(tls)
      const place = { host: settings.HTTP_HOST, port: settings.HTTPS_PORT, setting: 'HTTPS_PORT' }
      return { http, https: await bind(tls, place) }
    },
    async stop() {
      ready = false
      stopping.abort()
      const closed = servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve())))
      // A connection is idle only once its answer is written, and would otherwise be kept alive for seconds.
      const idle = setInterval(() => {
        for (const server of servers) server.closeIdleConnections()
      }, 20)
      const force = setTimeout(() => {
        for (const server of servers) server.closeAllConnections()
      }, settings.SHUTDOWN_SECONDS * 1000)
      await Promise.all(closed)
      clearTimeout(force)
      clearInterval(idle)
    },
  }
}
