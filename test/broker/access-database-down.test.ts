import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { enter, register, returnCodeOf } from './support/scene.ts'

let server: TestServer
let admin: pg.Client
let database: string

beforeAll(async () => {
  server = await startServer({ CREDENTIAL_CACHE_SECONDS: 0.01 })
  const url = new URL(server.database_.url)
  database = url.pathname.slice(1)
  url.pathname = '/postgres'
  admin = new pg.Client({ connectionString: url.href })
  await admin.connect()
})
afterAll(async () => {
  await admin.query(`alter database ${database} allow_connections true`)
  await admin.end()
  await server.stop()
})

test('a CONNECT while the database is down is answered 3, never 4 or 5, and 0 once it is back', async () => {
  const password = await register(server, 'down-1')
  const login = { clientId: 'down-1', username: 'down-1', password: Buffer.from(password) }
  expect(await returnCodeOf(server, login)).toBe(0)

  await admin.query(`alter database ${database} allow_connections false`)
  await admin.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [database])
  const wrongKey = { ...login, password: Buffer.from(`sbk_${'x'.repeat(43)}`) }
  const principal = { clientId: 'technician', username: 'admin', password: Buffer.from(ADMIN_TOKEN) }
  for (const connect of [login, wrongKey, principal]) expect(await returnCodeOf(server, connect)).toBe(3)

  await admin.query(`alter database ${database} allow_connections true`)
  await until(async () => (await returnCodeOf(server, login)) === 0, 'login after the outage')
  expect(await returnCodeOf(server, wrongKey)).toBe(4)
  expect(await returnCodeOf(server, principal)).toBe(0)
  await (await enter(server, 'down-1', password)).end()
})
