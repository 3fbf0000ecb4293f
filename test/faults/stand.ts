import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../../db/embedded-postgres.ts'
import { ADMIN_TOKEN, type Http, httpClient } from '../support/http.ts'
import { type KillPoint, type ServerProcess, startServerProcess } from '../support/server-process.ts'
import { silent } from '../support/silent-log.ts'
import { until } from '../support/until.ts'

/** A test stand: PostgreSQL, the server and the devices, each a process of its own that can be hurt. */
export interface Stand extends AsyncDisposable {
  directory: string
  postgres: EmbeddedPostgres
  /** Where the server is, whenever it is: its ports stay the same. */
  api: Http
  http: string
  mqtt: string
  /** Asks the ledger past the server; waits while PostgreSQL is away. */
  sql<Row extends Record<string, unknown>>(text: string, values?: unknown[]): Promise<Row[]>
  server: ServerProcess
  startServer(options?: ServerOptions): Promise<ServerProcess>
  /** Creates a client and answers its key. */
  register(id: string, client?: Record<string, unknown>): Promise<string>
  /** Waits until no execution is unsettled, or until none has settled for so long: the oracle says what is left. */
  settled(stillMs?: number): Promise<void>
  /** Disposed with the stand, before it and in reverse order. */
  use<T extends AsyncDisposable>(part: T): T
}

interface ServerOptions {
  killAt?: KillPoint | undefined
  killAfter?: number | undefined
  env?: Record<string, string>
}

interface StandOptions {
  settings?: Record<string, unknown>
  /** Default: a new folder; the data of PostgreSQL goes into `postgres` in it. */
  directory?: string
  /** How the server reaches PostgreSQL, if not directly. */
  databaseUrl?(direct: string): Promise<string>
  postgresSettings?: Record<string, string>
}

export async function createStand(options: StandOptions = {}): Promise<Stand> {
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'signalbox-faults-')))
  await mkdir(join(directory, 'devices'), { recursive: true })
  const postgres = await startEmbeddedPostgres({
    dataDir: join(directory, 'postgres'),
    log: silent,
    ...(options.postgresSettings ? { settings: options.postgresSettings } : {}),
  })
  const pool = new pg.Pool({ connectionString: postgres.url, max: 2 })
  pool.on('error', () => undefined)
  const [httpPort, mqttPort, wsPort] = await freePorts(3)
  const parts = new AsyncDisposableStack()
  const databaseUrl = (await options.databaseUrl?.(postgres.url)) ?? postgres.url
  const ports = { HTTP_PORT: httpPort, MQTT_PORT: mqttPort, MQTT_WS_PORT: wsPort }
  const settings = { ...ports, RETRY_BACKOFF_SECONDS: 0.5, ...options.settings }
  const http = `http://127.0.0.1:${httpPort}`

  const stand: Stand = {
    directory,
    postgres,
    http,
    mqtt: `mqtt://127.0.0.1:${mqttPort}`,
    api: httpClient(http, ADMIN_TOKEN),
    server: undefined as never,
    async sql<Row extends Record<string, unknown>>(text: string, values?: unknown[]) {
      const answered = await until(async () => await pool.query(text, values).catch(notNow), 'PostgreSQL', 60_000)
      return answered.rows as Row[]
    },
    async startServer({ killAt, killAfter, env } = {}) {
      stand.server = await startServerProcess(
        { url: databaseUrl },
        { settings, ...(killAt ? { killAt } : {}), ...(killAfter ? { killAfter } : {}), ...(env ? { env } : {}) },
      )
      return stand.server
    },
    async register(id, client = {}) {
      const { status, body } = await stand.api.post('/clients', { id, ...client })
      if (status !== 201) throw new Error(`client ${id}: ${status} ${JSON.stringify(body)}`)
      return body.clientKey
    },
    async settled(stillMs = 60_000) {
      const unsettled = `select count(*)::integer as left from executions where status in ('pending', 'queued', 'delivered', 'running')`
      let least = Number.POSITIVE_INFINITY
      // To look must not be what keeps PostgreSQL busy.
      let pauseMs = 100
      for (let since = performance.now(); performance.now() - since < stillMs; await sleep(pauseMs)) {
        const asked = performance.now()
        const left = (await stand.sql<{ left: number }>(unsettled))[0]?.left ?? 0
        pauseMs = Math.max(100, 10 * (performance.now() - asked))
        if (left === 0) return
        if (left < least) since = performance.now()
        least = Math.min(least, left)
      }
    },
    use: (part) => parts.use(part),
    async [Symbol.asyncDispose]() {
      await parts.disposeAsync()
      if (stand.server) await stand.server.kill()
      await pool.end()
      await postgres.stop()
      await rm(directory, { recursive: true, force: true })
    },
  }
  return stand
}

/** PostgreSQL is away, or coming back. A mistake in the statement is none of it. */
function notNow(error: Error & { code?: string }): undefined {
  if (/^(42|22|23)/.test(error.code ?? '')) throw error
}

/** Ports that are free now. They stay ours because nobody else asks for them by number. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer()
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      return server
    }),
  )
  const ports = servers.map((server) => (server.address() as AddressInfo).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
