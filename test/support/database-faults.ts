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
  /** What the server asks arrives and is done; what PostgreSQL answers is kept back. */
  mute(): void
  /** What was kept back arrives. */
  thaw(): void
  /** The connections that there are hear nothing any more, and nobody tells; new ones are well. */
  lose(): void
  stop(): Promise<void>
}

export async function startNetwork(database: TestDatabase): Promise<Network> {
  const target = new URL(database.url)
  const path = `${decodeURIComponent(target.hostname)}/.s.PGSQL.${target.port}`
  const links = new Set<{ near: Socket; far: Socket; lost: boolean }>()
  let cut = false
  let asksPass = true
  let answersPass = true
  const allow = (socket: Socket, pass: boolean): unknown => (pass ? socket.resume() : socket.pause())
  const adjust = (): void => {
    for (const { near, far, lost } of links) {
      allow(near, asksPass && !lost)
      allow(far, answersPass && !lost)
    }
  }
  const server = createServer((near) => {
    if (cut) return near.destroy()
    const far = openSocket({ path })
    const link = { near, far, lost: false }
    links.add(link)
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      socket.on('data', (chunk) => other.write(chunk))
      socket.on('error', () => undefined)
      socket.on('close', () => {
        links.delete(link)
        other.end()
      })
    }
    adjust()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = new URL(database.url)
  url.hostname = '127.0.0.1'
  url.port = String((server.address() as AddressInfo).port)
  const pass = (asks: boolean, answers: boolean) => () => {
    asksPass = asks
    answersPass = answers
    adjust()
  }
  const destroyAll = (): void => {
    for (const { near, far } of links) for (const socket of [near, far]) socket.destroy()
  }
  return {
    url: url.href,
    cut() {
      cut = true
      destroyAll()
    },
    mend() {
      cut = false
    },
    freeze: pass(false, false),
    mute: pass(true, false),
    thaw: pass(true, true),
    lose() {
      for (const link of links) link.lost = true
      adjust()
    },
    async stop() {
      destroyAll()
      server.close()
      await once(server, 'close')
    },
  }
}
