import { connect } from 'node:net'
import pg from 'pg'
import { expect, test } from 'vitest'
import { startServer } from '../support/server.ts'
import { until } from '../support/until.ts'

test('whoever leaves while he is asked who he is opens nothing that stays', async () => {
  const server = await startServer({ CREDENTIAL_CACHE_SECONDS: 0.001, DATABASE_TIMEOUT_SECONDS: 30 })
  const key = (await server.api.post('/clients', { id: 'hasty' })).body.clientKey
  const lock = new pg.Client({ connectionString: server.database_.url })
  await lock.connect()
  await lock.query('begin; lock table clients in access exclusive mode')

  const socket = connect(Number(new URL(server.http).port), '127.0.0.1')
  socket.write(`GET /api/events/hasty HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\n\r\n`)
  const waiting = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  await until(async () => (await server.sql(waiting)).length > 0, 'the look-up waits')
  socket.destroy()
  // The server has seen the end of the connection once it has answered a later one.
  await until(async () => (await fetch(`${server.http}/health/live`)).ok, 'the server goes on')
  await lock.query('commit')
  await lock.end()

  // A session that stayed would be shown online for HTTP_PING_TIMEOUT_SECONDS.
  const begun = `select 1 from events where client_id = 'hasty' and type = 'client.online'`
  const ended = `select 1 from events where client_id = 'hasty' and type = 'client.offline'`
  await until(async () => (await server.sql(begun)).length > 0, 'the session begins')
  await until(async () => (await server.sql(ended)).length > 0, 'the session ends', 5000)
  expect((await server.api.get('/clients/hasty')).body.presence).toBe('offline')
  const response = await fetch(`${server.http}/api/events/hasty`, { headers: { authorization: `Bearer ${key}` } })
  expect(response.status).toBe(200)
  await response.body?.cancel()
  await server.stop()
})
