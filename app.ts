import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { sql } from 'kysely'
import { type DestinationStream, type Logger, pino } from 'pino'
import type { HealthChecks } from './api/routes/health.ts'
import { type Api, createApi } from './api/server.ts'
import { type Broker, createBroker } from './broker/broker.ts'
import { bootstrapAdministrator } from './control/access/bootstrap-administrator.ts'
import { openCertificate } from './control/certificate.ts'
import type { Line } from './control/cluster/line.ts'
import { createRedisLine } from './control/cluster/redis-line.ts'
import { createWorkerLine, relayWorkers } from './control/cluster/worker-line.ts'
import { type Control, createControl, type Passed } from './control/control.ts'
import { type ConnectOptions, connectDatabase, type Db } from './db/connect.ts'
import { startEmbeddedPostgres } from './db/embedded-postgres.ts'
import { feedLagSeconds } from './db/events.ts'
import { migrate } from './db/migrate.ts'
import { redisVersion } from './db/redis.ts'
import { withoutSecrets } from './schemas/secrets.ts'
import { plainHost, type Settings } from './schemas/settings.ts'

export interface Overrides {
  log?: Logger
  /** In tests: every HTTP answer is checked against its schema. */
  checkResponses?: boolean
  /** In tests: called at named points of a command's way. */
  passed?: Passed
  random?: () => number
  /** One of the workers of a process that has called `startRelay`. */
  isWorker?: boolean
}

/** Where a started server can be reached. */
export interface Addresses {
  http: string
  mqtt: string
  mqttWebSocket: string
  /** With a certificate. */
  tls: { https: string; mqtts: string; mqttWebSocket: string } | undefined
  database: string
  /** Shown once, at the very first start without ADMIN_TOKEN. */
  newAdminToken: string | undefined
}

export interface App {
  start(): Promise<Addresses>
  /** Start in reverse: intake first, the database last. */
  stop(): Promise<void>
}

/** The composition root: builds everything once, and alone knows everything. */
export function createApp(settings: Settings, overrides: Overrides = {}): App {
  const log = overrides.log ?? createLog(settings.LOG_LEVEL, pino.destination(2))
  const started = new AsyncDisposableStack()

  async function start(): Promise<Addresses> {
    try {
      const { connection, shown } = await findDatabase(settings, log, started)
      const applied = await migrate({ connection, timeoutSeconds: settings.DATABASE_TIMEOUT_SECONDS })
      if (applied.length > 0) log.info({ migrations: applied }, 'schema is up to date')
      const db = openDatabase(connection, settings, log, started)
      const newAdminToken = await bootstrapAdministrator(db, settings.ADMIN_TOKEN)

      const broker: Broker = createBroker({ settings, log })
      const line = lineOf(settings, overrides.isWorker)
      const control: Control = createControl({ ...overrides, db, settings, log, transport: broker.transport, line })
      started.defer(() => control.stop())
      await broker.attach(control)
      started.defer(() => broker.stop())
      started.defer(() => control.letGo())
      await control.recover()
      control.start()
      const certificate = await openCertificate(settings, log)
      started.defer(() => certificate?.stop())
      const mqtt = await broker.listen(certificate)
      const health = healthChecks(control, settings)
      const api: Api = createApi({ control, log, health, checkResponses: overrides.checkResponses ?? false })
      started.defer(() => api.stop())
      const { http, https } = await api.listen(certificate)
      const [plainHttp, plainMqtt] = [
        shownHost(plainHost(settings, 'HTTP_HOST')),
        shownHost(plainHost(settings, 'MQTT_HOST')),
      ]
      const [httpHost, mqttHost] = [shownHost(settings.HTTP_HOST), shownHost(settings.MQTT_HOST)]
      return {
        http: `http://${plainHttp}:${http}`,
        mqtt: `mqtt://${plainMqtt}:${mqtt.mqtt}`,
        mqttWebSocket: `ws://${plainMqtt}:${mqtt.ws}/mqtt`,
        tls: certificate && {
          https: `https://${httpHost}:${https}`,
          mqtts: `mqtts://${mqttHost}:${mqtt.mqtts}`,
          mqttWebSocket: `wss://${mqttHost}:${mqtt.wss}/mqtt`,
        },
        database: shown,
        newAdminToken,
      }
    } catch (error) {
      await started.disposeAsync()
      throw error
    }
  }

  return { start, stop: () => started.disposeAsync() }
}

/** For workers of this process: they hear of each other through it. */
export const startRelay = (): void => relayWorkers()

/** The connections that PostgreSQL keeps for its own use, technicians and the start of a successor. */
const SPARE_CONNECTIONS = 30

/** The database of several servers: the one of DATABASE_URL, or an embedded one, with connections for so many. */
export async function startDatabase(
  settings: Settings,
  servers: number,
): Promise<{ url: string; shown: string; stop(): Promise<void> }> {
  const started = new AsyncDisposableStack()
  const log = createLog(settings.LOG_LEVEL, pino.destination(2))
  const connections = Math.max(100, servers * settings.DATABASE_POOL + SPARE_CONNECTIONS)
  const { url, shown } = await findDatabase(settings, log, started, { max_connections: String(connections) })
  return { url, shown, stop: () => started.disposeAsync() }
}

/** Brings the schema up to date and ends; answers the migrations that were missing. */
export async function migrateOnly(settings: Settings): Promise<string[]> {
  await using opened = new AsyncDisposableStack()
  const { connection } = await findDatabase(settings, quietLog(), opened)
  return await migrate({ connection, timeoutSeconds: settings.DATABASE_TIMEOUT_SECONDS })
}

/**
 * Whether there is a database to work with: asks the one of DATABASE_URL for its version, or starts an embedded one in a
 * folder of its own, so that the one of a running server is left alone. Throws with the reason if there is none.
 */
export async function tryDatabase(settings: Settings): Promise<{ version: number; shown: string }> {
  await using opened = new AsyncDisposableStack()
  const folder = await mkdtemp(join(tmpdir(), 'signalbox-doctor-'))
  opened.defer(() => rm(folder, { recursive: true, force: true }))
  const { connection, shown } = await findDatabase({ ...settings, DATA_DIR: folder }, quietLog(), opened)
  const db = openDatabase(connection, settings, quietLog(), opened)
  const { rows } = await sql<{ version: number }>`select current_setting('server_version_num')::int as version`.execute(
    db,
  )
  return { version: Math.floor((rows[0]?.version ?? 0) / 10_000), shown: settings.DATABASE_URL ? shown : 'embedded' }
}

/** The version of REDIS_URL's Redis. Throws with the reason if none answers. */
export const tryRedis = (url: string, { REDIS_TIMEOUT_SECONDS }: Settings): Promise<string> =>
  redisVersion(url, REDIS_TIMEOUT_SECONDS)

const healthChecks = ({ db, writes, line, nodes }: Control, settings: Settings): HealthChecks => ({
  async database() {
    await sql`select 1`.execute(db)
    return {}
  },
  async writes() {
    if (!writes()) throw new Error('what was to be written lately waits, or was refused')
    return {}
  },
  async feed() {
    const lagSeconds = Math.round((await feedLagSeconds(db)) * 1000) / 1000
    return { lagSeconds, degraded: lagSeconds > settings.ALERT_FEED_LAG_SECONDS }
  },
  ...(line && {
    // Without it everything is served, and what other nodes do is noticed later.
    async [settings.REDIS_URL === undefined ? 'line' : 'redis']() {
      return { state: line.up() ? 'up' : 'down', nodes: nodes.others() + 1, degraded: !line.up() }
    },
  }),
})

function lineOf(settings: Settings, isWorker = false): Line | undefined {
  const { REDIS_URL: url, REDIS_TIMEOUT_SECONDS: timeoutSeconds } = settings
  if (url !== undefined) return createRedisLine({ url, timeoutSeconds })
  return isWorker ? createWorkerLine() : undefined
}

const quietLog = (): Logger => createLog('error', pino.destination(2))

/** No line has a key or a token, whatever it quotes. */
export const createLog = (level: string, destination: DestinationStream): Logger =>
  pino({ level, hooks: { streamWrite: withoutSecrets } }, destination)

/** Where the database is: the one of DATABASE_URL, or an embedded one that is started for it, with these settings of PostgreSQL. */
async function findDatabase(
  { DATABASE_URL, DATA_DIR }: Settings,
  log: Logger,
  started: AsyncDisposableStack,
  embedded: Record<string, string> = {},
): Promise<{ connection: ConnectOptions['connection']; url: string; shown: string }> {
  if (DATABASE_URL !== undefined) {
    return { connection: DATABASE_URL, url: DATABASE_URL, shown: withoutPassword(DATABASE_URL) }
  }
  const postgres = await startEmbeddedPostgres({
    dataDir: join(resolve(DATA_DIR), 'postgres'),
    log,
    settings: embedded,
  })
  started.defer(() => postgres.stop())
  return { connection: postgres.connection, url: postgres.url, shown: postgres.url }
}

function openDatabase(
  connection: ConnectOptions['connection'],
  settings: Settings,
  log: Logger,
  started: AsyncDisposableStack,
): Db {
  let closing = false
  const db = connectDatabase({
    connection,
    poolSize: settings.DATABASE_POOL,
    timeoutSeconds: settings.DATABASE_TIMEOUT_SECONDS,
    // The embedded server may be gone before the last idle connection has noticed that it was closed.
    onIdleError: (error) => closing || log.warn({ reason: error.message }, 'database connection lost'),
  })
  started.defer(() => {
    closing = true
    return db.destroy()
  })
  return db
}

const shownHost = (address: string): string => (address.includes(':') ? `[${address}]` : address)

function withoutPassword(url: string): string {
  const shown = new URL(url)
  if (shown.password) shown.password = '***'
  return shown.href
}
