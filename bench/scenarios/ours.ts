import type { Account } from '../accounts.ts'
import type { FleetOrders } from '../load/fleet.ts'
import { cpuSeconds, cpuSecondsOfFamily } from '../processes.ts'
import type { Watched } from '../rate.ts'
import { ADMIN_TOKEN, type Server } from '../signalbox.ts'
import type { Database, Stand } from '../stand.ts'

/** Our server on a database of its own with so many registered clients. */
export interface Ours extends AsyncDisposable {
  server: Server
  database: Database
  accounts: Account[]
  /** For whoever calls the API. */
  api: { origin: string; token: string }
  watched: Required<Watched>
}

/** `kept`: a database with these clients that is there already, and stays. */
export async function startOurs(stand: Stand, clients: number, kept?: Database): Promise<Ours> {
  await using started = new AsyncDisposableStack()
  const { template, accounts } = await stand.accounts(clients)
  const database = kept ?? started.use(await stand.createDatabase(template))
  const server = started.use(await stand.startServer(database))
  const postgres = stand.postgres.pid() as number
  const parts = started.move()
  return {
    server,
    database,
    accounts,
    api: { origin: server.http, token: ADMIN_TOKEN },
    watched: { server: () => cpuSeconds(server.pid), database: () => cpuSecondsOfFamily(postgres) },
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
