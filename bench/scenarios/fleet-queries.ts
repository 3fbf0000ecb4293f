import { v7 as uuid } from 'uuid'
import { findLostSessions, listShown } from '../../db/clients.ts'
import { connectDatabase, type Db } from '../../db/connect.ts'
import { readClientSlice } from '../../db/lost-clients.ts'
import { insertCommands, type NewCommand } from '../../db/new-commands.ts'
import { findNeglectedSessions } from '../../db/overdue-executions.ts'
import { memoryMiB } from '../processes.ts'
import { type BaseSizes, type Figures, scenario } from '../scenario.ts'
import type { Database, Stand } from '../stand.ts'
import { median } from '../statistics.ts'

interface Sizes extends BaseSizes {
  clients: number
  /** The clients' sessions are spread over so many nodes, one of which asks. */
  nodes: number
}

/** As in control/executions/sweeper.ts, control/alerts/follower.ts and control/cluster/catch-up.ts. */
const SWEPT = 500
const SLICE = 5000
const CLIENT_LOST_SECONDS = 60
/** More often than PostgreSQL plans a statement anew. */
const TIMES = 10

/** A registered client as often as it is wanted, each with a session on one of the nodes. */
async function fillFleet(database: Database, { clients, nodes }: Sizes): Promise<void> {
  await database.query(
    `insert into nodes (id, name, process_id, expires_at)
     select 'node-' || i, 'node-' || i, i, 'infinity' from generate_series(0, $1::integer - 1) i`,
    [nodes],
  )
  await database.query(
    `insert into clients select (jsonb_populate_record(k, jsonb_build_object(
       'id', 'fleet-' || lpad(i::text, 7, '0'), 'key_hash', '\\x' || encode(sha256(i::text::bytea), 'hex'), 'session_epoch', i, 'session_node', 'node-' || i % $2::integer))).*
     from (select c as k from clients c limit 1), generate_series(1, $1::integer) i`,
    [clients, nodes],
  )
  await database.query('vacuum analyze')
  await database.query('checkpoint')
}

async function milliseconds(statement: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now()
  await statement()
  return performance.now() - startedAt
}

async function repeated(statement: (index: number) => Promise<unknown>): Promise<number> {
  const taken: number[] = []
  for (let index = 0; index < TIMES; index++) taken.push(await milliseconds(() => statement(index)))
  return median(taken)
}

const TO_ALL: Omit<NewCommand, 'id'> = {
  principalId: uuid(),
  createdBy: 'bench',
  idempotencyKey: null,
  requestHash: null,
  target: { kind: 'broadcast' },
  action: 'bench.run',
  payload: { n: 0 },
  priority: 5,
  delivery: 'at_most_once',
  startTimeoutSeconds: 3600,
  timeoutSeconds: 3600,
  maxRetries: 0,
  notBefore: null,
  expiresAt: null,
  ttlSeconds: 3600,
  expectedTargets: null,
  quota: null,
  claims: new Map(),
  sure: false,
}

/** A node that knows all these clients and has none of them: how long it takes to begin, and what it takes in memory. */
async function measureStart(stand: Stand, database: Database): Promise<Figures> {
  const startedAt = performance.now()
  await using server = await stand.startServer(database)
  return { nodeStart: (performance.now() - startedAt) / 1000, memory: memoryMiB(server.pid) }
}

async function measure(db: Db, database: Database, { clients, nodes }: Sizes): Promise<Figures> {
  const own = Array.from({ length: Math.floor(clients / nodes) }, (_, index) => (index + 1) * nodes)
  const sessions = own.map((epoch) => ({ clientId: `fleet-${String(epoch).padStart(7, '0')}`, epoch }))
  const swept = (index: number) =>
    Array.from({ length: SWEPT }, (_, n) => sessions[(index * SWEPT + n) % sessions.length])
  const figures: Figures = {
    sweep: await repeated((index) => findNeglectedSessions(db, swept(index) as typeof sessions)),
    lostSessions: await repeated(async () => {
      const lost = await findLostSessions(db, 'node-0', own)
      if (lost.length > 0) throw new Error(`${lost.length} sessions are lost of ${clients} that all live`)
    }),
    alertSlice: await repeated(() => readClientSlice(db, '', SLICE, CLIENT_LOST_SECONDS)),
    comparison: await repeated(() => listShown(db, '', SLICE)),
  }
  const limits = { maxPendingPerClient: 1000, dayTimeZone: 'UTC' }
  const took = await milliseconds(() => insertCommands(db, [{ ...TO_ALL, id: uuid() }], limits))
  const [stored] = await database.query<{ count: string; bytes: string }>(
    "select count(*), pg_total_relation_size('executions') as bytes from executions",
  )
  if (Number(stored?.count) < clients) throw new Error(`the broadcast has ${stored?.count} executions of ${clients}`)
  return { ...figures, broadcastInsert: took / 1000, disk: Number(stored?.bytes) / Number(stored?.count) }
}

export const fleetQueries = scenario<Sizes>({
  name: 'fleet-queries',
  measures:
    'the start of a node, what the clock asks PostgreSQL, and the insert of one broadcast, by the number of clients',
  onRequest: true,
  sizes: {
    full: { rounds: 3, clients: 100_000, nodes: 20 },
    quick: { rounds: 1, clients: 10_000, nodes: 20 },
    smoke: { rounds: 1, clients: 100, nodes: 2 },
  },
  subjects: [
    {
      name: 'signalbox',
      async measure(stand: Stand, sizes) {
        const { template } = await stand.accounts(1)
        await using database = await stand.createDatabase(template)
        await fillFleet(database, sizes)
        const start = await measureStart(stand, database)
        const db = connectDatabase({
          connection: database.url,
          poolSize: 1,
          timeoutSeconds: 60,
          patient: true,
          onIdleError: (error) => stand.say(error.message),
        })
        try {
          return { ...start, ...(await measure(db, database, sizes)) }
        } finally {
          await db.destroy()
        }
      },
    },
  ],
  bars: [],
})
