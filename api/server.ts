import { createServer, type Server } from 'node:http'
import Koa from 'koa'
import type { Logger } from 'pino'
import { v7 as uuid } from 'uuid'
import type { Control } from '../control/control.ts'
import { Id } from '../schemas/ids.ts'
import { jsonBody } from './body.ts'
import { problems } from './problem.ts'
import { mount, type Route } from './route.ts'
import { accessRoutes } from './routes/access.ts'
import { actionRoutes } from './routes/actions.ts'
import { clientRoutes } from './routes/clients.ts'
import { commandRoutes } from './routes/commands.ts'
import { eventRoutes } from './routes/events.ts'
import { type HealthChecks, healthRoutes } from './routes/health.ts'
import { httpAgentRoutes } from './routes/http-agent.ts'
import { zoneRoutes } from './routes/zones.ts'

export interface Api {
  listen(): Promise<{ httpPort: number }>
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
    ctx.state.requestId = Id.safeParse(given).success ? given : uuid()
    ctx.set('X-Request-Id', ctx.state.requestId)
    ctx.set('Cache-Control', 'no-store')
    await next()
  })
  koa.use(problems(log))
  koa.use(healthRoutes(health, () => ready, log).routes())
  koa.use(jsonBody(settings.HTTP_MAX_BODY_BYTES))
  const router = mount(apiRoutes(control), {
    authenticator: control.authenticator,
    stopping: stopping.signal,
    checkResponses,
  })
  koa.use(router.routes()).use(router.allowedMethods())

  const server = createServer({ requestTimeout: settings.HTTP_REQUEST_TIMEOUT_SECONDS * 1000 }, koa.callback())

  return {
    async listen() {
      const httpPort = await listen(server, settings.HTTP_HOST, settings.HTTP_PORT)
      ready = true
      return { httpPort }
    },
    async stop() {
      ready = false
      stopping.abort()
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      // A connection is idle only once its answer is written, and would otherwise be kept alive for seconds.
      const idle = setInterval(() => server.closeIdleConnections(), 20)
      const force = setTimeout(() => server.closeAllConnections(), settings.SHUTDOWN_SECONDS * 1000)
      await closed
      clearTimeout(force)
      clearInterval(idle)
    },
  }
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE'
      reject(
        taken ? new Error(`HTTP_PORT: port ${port} on ${host} is taken; choose another or stop what uses it`) : error,
      )
    })
    server.listen(port, host, () => resolve((server.address() as { port: number }).port))
  })
}
