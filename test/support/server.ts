import { Writable } from 'node:stream'
import { type DestinationStream, pino } from 'pino'
import { type Addresses, createApp, createLog, type Overrides } from '../../app.ts'
import { parseSettings } from '../../schemas/settings.ts'
import { createOwnServer, createTestDatabase, type TestDatabase } from './database.ts'
import { ADMIN_TOKEN, type Http, httpClient } from './http.ts'
import { refuseSecrets } from './secrets.ts'

export { ADMIN_TOKEN }

export interface TestServer extends Addresses {
  database_: TestDatabase
  sql: TestDatabase['query']
  api: Http
  /** Every log line so far, parsed. */
  logs: Record<string, unknown>[]
  mqttPort: number
  /** Throws if a log line has a key or a token in it that this test file knows. */
  stop(): Promise<void>
}

/**
 * The whole server in this process, on free ports and a database of its own, with `ownPostgres` on a PostgreSQL of its own (see
 * createOwnServer); every HTTP answer is checked against its schema. `careless`: its log does not leave out secrets.
 */
export async function startServer(
  settings: Record<string, unknown> = {},
  overrides: Overrides & { database?: TestDatabase; ownPostgres?: boolean; careless?: boolean } = {},
): Promise<TestServer> {
  const { database: given, ownPostgres, careless, ...rest } = overrides
  const database = given ?? (await (ownPostgres ? createOwnServer() : createTestDatabase()))
  const logs: Record<string, unknown>[] = []
  const sink = new Writable({
    write(chunk, _encoding, done) {
      logs.push(JSON.parse(chunk.toString()))
      done()
    },
  })
  const app = createApp(
    parseSettings({
      DATABASE_URL: database.url,
      HTTP_PORT: 0,
      MQTT_PORT: 0,
      MQTT_WS_PORT: 0,
      ADMIN_TOKEN,
      SWEEP_INTERVAL_SECONDS: 0.05,
      ...settings,
    }),
    {
      checkResponses: true,
      log: careless ? pino({ level: 'debug' }, sink as DestinationStream) : createLog('debug', sink),
      ...rest,
    },
  )
  const addresses = await app.start()
  return {
    ...addresses,
    database_: database,
    sql: database.query,
    api: httpClient(addresses.http, ADMIN_TOKEN),
    logs,
    mqttPort: Number(new URL(addresses.mqtt).port),
    async stop() {
      await app.stop()
      if (!given) await database.drop()
      refuseSecrets(logs.map((line) => JSON.stringify(line)).join('\n'), "the server's log")
    },
  }
}
