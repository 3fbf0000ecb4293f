import type { Account } from '../accounts.ts'
import type { FleetOrders } from '../load/fleet.ts'
import { startRedis, watchRedis } from '../peers/redis.ts'
import { cpuMicros, cpuMicrosOfFamily } from '../processes.ts'
import type { Watched } from '../rate.ts'
import { ADMIN_TOKEN, type Server } from '../signalbox.ts'
import type { Database, Stand } from '../stand.ts'

/** Our server, one node or several, on a database of its own with so many registered clients. */
export interface Ours extends AsyncDisposable {
  server: Server
  /** All that were asked for: `server` is the first. */
  nodes: Server[]
  database: Database
  accounts: Account[]
  /** For whoever calls the API. */
  api: { origin: string; token: string }
  /** CPU time so far, in µs. */
  cpu: { server(): number; database(): number }
  watched: Watched
}

export interface Setup {
  /** A database with these clients that is there already, and stays. */
  kept?: Database
  nodes?: number
  /** The nodes have one between them. */
  redis?: boolean
}

export async function startOurs(
  stand: Stand,
  clients: number,
  { kept, nodes: count = 1, redis = false }: Setup = {},
): Promise<Ours> {
  await using started = new AsyncDisposableStack()
  const { template, accounts } = await stand.accounts(clients)
  const database = kept ?? started.use(await stand.createDatabase(template))
  const line = redis ? started.use(await startLine(stand)) : undefined
  const starting = Array.from({ length: count }, () => stand.startServer(database, line?.settings))
  for (const start of starting) started.defer(() => start.then(stopServer, () => undefined))
  const nodes = await Promise.all(starting)
  await line?.check(nodes)
  const [server] = nodes as [Server]
  const postgres = stand.postgres.pid() as number
  const cpu = {
    server: () => nodes.reduce((sum, { pid }) => sum + cpuMicros(pid), 0),
    database: () => cpuMicrosOfFamily(postgres),
  }
  const parts = started.move()
  return {
    server,
    nodes,
    database,
    accounts,
    api: { origin: server.http, token: ADMIN_TOKEN },
    cpu,
    watched: {
      serverCpu: cpu.server,
      databaseCpu: cpu.database,
      statements: () =>
        ask(database, 'select xact_commit as count from pg_stat_database where datname = current_database()'),
      wal: () => ask(database, "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as count"),
      ...line?.watched,
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  }
}

/** Each statement of the server is a transaction; WAL is that of all databases of the stand, of which one is busy at a time. */
const ask = async (database: Database, sql: string): Promise<number> =>
  Number((await database.query<{ count: string }>(sql))[0]?.count)

const stopServer = (server: Server): PromiseLike<void> => server[Symbol.asyncDispose]()

interface RedisLine extends AsyncDisposable {
  settings: Record<string, string>
  watched: Watched
  /** Throws unless all of them say that they reach it. */
  check(nodes: Server[]): Promise<void>
}

async function startLine(stand: Stand): Promise<RedisLine> {
  await using started = new AsyncDisposableStack()
  const { pid, socketPath } = started.use(await startRedis(stand.directory, 'nodes'))
  const counters = started.use(await watchRedis(socketPath))
  const parts = started.move()
  return {
    settings: { REDIS_URL: socketPath },
    watched: {
      redisCpu: () => cpuMicros(pid),
      redisRoundTrips: counters.roundTrips,
      redisMessages: counters.messages,
    },
    async check(nodes) {
      for (const { http } of nodes) {
        const health = await (await fetch(`${http}/health`)).text()
        if (JSON.parse(health).checks.redis?.state !== 'up') throw new Error(`a node does not reach Redis: ${health}`)
      }
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  }
}

/** Devices as the agent is: they keep a journal, and listen to everything that is meant for them. */
export const agents = (port: number, accounts: Account[]): FleetOrders => ({
  port,
  accounts,
  topics: ['clientConfig', 'clientReplies', 'broadcastCommands', 'clientCommands'],
  journals: true,
  keepaliveSeconds: 60,
  connecting: 100,
})

/** Throws unless the ledger has exactly so many executions, all of them with that status. */
export async function checkLedger(database: Database, expected: number, status: string): Promise<void> {
  const counts = await database.query<{ status: string; count: string }>(
    'select status, count(*) from executions group by status',
  )
  const shown = counts.map((row) => `${row.count} ${row.status}`).join(', ') || 'none'
  if (shown !== `${expected} ${status}`) throw new Error(`the ledger has ${shown} instead of ${expected} ${status}`)
}
