import { once } from 'node:events'
import { type AddressInfo, createServer, connect as openSocket, type Socket } from 'node:net'
import pg from 'pg'
import type { TestDatabase } from './database.ts'

async function asAdmin(database: TestDatabase, ...statements: string[]): Promise<void> {
  const url = new URL(database.url)
  const name = url.pathname.slice(1)
  url.pathname = '/postgres'
  const admin = new pg.Client({ connectionString: url.href })
  await admin.connect()
  try {
    for (const statement of statements) await admin.query(statement.replaceAll('$name', name))
  } finally {
    await admin.end()
  }
}

/** Nobody gets in any more, and everybody inside is thrown out. */
export const closeDatabase = (database: TestDatabase): Promise<void> =>
  asAdmin(
    database,
    'alter database "$name" with allow_connections false',
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = '$name' and pid <> pg_backend_pid()`,
  )

export const reopenDatabase = (database: TestDatabase): Promise<void> =>
  asAdmin(database, 'alter database "$name" with allow_connections true')

/** A network between the server and its database, to be broken. */
export interface Network {
  url: string
  /** Every connection ends, and every new one at once. */
  cut(): void
  mend(): void
  /** Bytes are kept back in both directions, connections are accepted and hear nothing. */
  freeze(): void
  /** What was kept back arrives. */
  thaw(): void
  stop(): Promise<void>
}

export async function startNetwork(database: TestDatabase): Promise<Network> {
  const target = new URL(database.url)
  const path = `${decodeURIComponent(target.hostname)}/.s.PGSQL.${target.port}`
  const sockets = new Set<Socket>()
  let cut = false
  let frozen = false
  const server = createServer((near) => {
    if (cut) return near.destroy()
    const far = openSocket({ path })
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket)
      socket.on('data', (chunk) => other.write(chunk))
      if (frozen) socket.pause()
      socket.on('error', () => undefined)
      socket.on('close', () => {
        sockets.delete(socket)
        other.end()
      })
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(database.url)
  url.hostname = '127.0.0.1'
  url.port = String((server.address() as AddressInfo).port)
  return {
    url: url.href,
    cut() {
      cut = true
      for (const socket of sockets) socket.destroy()
    },
    mend() {
      cut = false
    },
    freeze() {
      frozen = true
      for (const socket of sockets) socket.pause()
    },
    thaw() {
      frozen = false
      for (const socket of sockets) socket.resume()
    },
    async stop() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
