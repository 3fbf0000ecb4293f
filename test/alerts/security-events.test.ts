import { afterAll, beforeAll, expect, test } from 'vitest'
import { client, fresh, principal } from '../access/support/principals.ts'
import { connectDevice } from '../support/device.ts'
import { openStream } from '../support/event-source.ts'
import { httpClient } from '../support/http.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { alertsOf, untilOpen, untilResolved } from './support.ts'

/** Long enough for a machine that has other things to do: what goes on must not look as if it had ended. */
const QUIET_SECONDS = 2

let server: TestServer
beforeAll(async () => {
  server = await startServer({
    ALERT_SECURITY_QUIET_SECONDS: QUIET_SECONDS,
    CREDENTIAL_CACHE_SECONDS: 0.1,
    HTTP_LOGIN_FAILURES_PER_MINUTE: 100_000,
  })
})
afterAll(() => server.stop())

/** A client whose key was rotated away; answers the old one. */
async function rotated(id: string): Promise<string> {
  const old = await client(server, id)
  expect((await server.api.post(`/clients/${id}/rotate-key`)).status).toBe(200)
  return old
}

const comeBy = {
  async mqtt(id: string, key: string): Promise<void> {
    const device = await connectDevice(server, { clientId: id, password: key })
    expect(device.returnCode).toBe(4)
    device.drop()
  },
  async http(id: string, key: string): Promise<void> {
    expect((await httpClient(server.http, key).post(`/clients/${id}/ping`)).status).toBe(401)
  },
}

test('a key that was rotated away opens one alert, whatever the door, and counts', async () => {
  const stream = await openStream(`${server.http}/api/events?types=alert.opened`, ADMIN_TOKEN)
  const id = fresh('device')
  const old = await rotated(id)
  await comeBy.mqtt(id, old)
  const opened = await untilOpen(server, 'security_event', `revoked_key:${id}`)
  expect(opened).toMatchObject({
    severity: 'critical',
    state: 'open',
    clientId: id,
    count: 1,
    details: {
      event: 'revoked_key',
      addresses: ['127.0.0.1'],
      detail: `key of client ${id}: the key was rotated away`,
    },
  })
  expect(opened.message).toContain(`revoked_key of ${id} from 127.0.0.1`)
  expect(JSON.stringify(opened)).not.toContain(old)
  await comeBy.http(id, old)
  await comeBy.mqtt(id, old)
  const counted = await untilOpen(server, 'security_event', `revoked_key:${id}`, ({ count }) => count === 3)
  expect(counted).toMatchObject({ id: opened.id, openedAt: opened.openedAt })
  expect(counted.lastAt > opened.lastAt).toBe(true)
  const event = await until(
    () => stream.messages.find(({ data }) => data.data.alertId === opened.id),
    'the stream tells of it',
  )
  expect(event.data).toMatchObject({ clientId: id, data: { kind: 'security_event', severity: 'critical' } })
  stream.close()
})

test('so does a revoked token, and the key of a deleted client; what is less severe opens none', async () => {
  const operator = await principal(server, 'operator')
  expect((await server.api.send('DELETE', `/tokens/${operator.tokenId}`)).status).toBe(204)
  expect((await operator.api.get('/clients')).status).toBe(401)
  const alert = await untilOpen(server, 'security_event', `revoked_key:${operator.name}`)
  expect(alert).not.toHaveProperty('clientId')

  const id = fresh('deleted')
  const key = await client(server, id)
  expect((await server.api.send('DELETE', `/clients/${id}`)).status).toBe(204)
  const wrong = fresh('device')
  await client(server, wrong)
  // Both are stored by then: it comes later.
  await comeBy.mqtt(wrong, `sbk_${'x'.repeat(43)}`)
  await comeBy.http(id, key)
  await untilOpen(server, 'security_event', `revoked_key:${id}`)
  const { items } = (await server.api.get(`/security-events?subject=${wrong}`)).body
  expect(items).toMatchObject([{ kind: 'bad_key', severity: 'warning' }])
  expect((await alertsOf(server, `kind=security_event&state=all`)).map(({ subject }) => subject)).not.toContain(
    `bad_key:${wrong}`,
  )
})

test('it ends once somebody has seen it and it is quiet; then the next one is a new alert', async () => {
  const id = fresh('device')
  const old = await rotated(id)
  await comeBy.http(id, old)
  const first = await untilOpen(server, 'security_event', `revoked_key:${id}`)
  const quiet = `select 1 from alerts where id = $1 and last_at < clock_timestamp() - interval '${QUIET_SECONDS + 0.5} seconds'`
  await until(async () => (await server.sql(quiet, [first.id])).length > 0, 'it is quiet')
  expect(await untilOpen(server, 'security_event', `revoked_key:${id}`)).toEqual(first)

  const seen = await server.api.post(`/alerts/${first.id}/acknowledge`, { note: 'our own script' })
  expect(seen).toMatchObject({ status: 200, body: { id: first.id, acknowledgedBy: 'admin' } })
  expect(await untilResolved(server, first)).toMatchObject({
    resolution: 'somebody has seen it, and it was not noticed again',
    note: 'our own script',
  })
  await comeBy.http(id, old)
  const second = await untilOpen(server, 'security_event', `revoked_key:${id}`)
  expect(second).toMatchObject({ state: 'open', count: 1 })
  expect(second.id).not.toBe(first.id)
})

test('while it goes on, acknowledging does not end it', async () => {
  const id = fresh('device')
  const old = await rotated(id)
  await comeBy.http(id, old)
  const { id: alertId } = await untilOpen(server, 'security_event', `revoked_key:${id}`)
  await server.api.post(`/alerts/${alertId}/acknowledge`)
  const isOld = `select 1 from alerts where id = $1 and opened_at < clock_timestamp() - interval '${QUIET_SECONDS + 1} seconds'`
  let came = 1
  for (; (await server.sql(isOld, [alertId])).length === 0; came++) await comeBy.http(id, old)
  const alert = await untilOpen(server, 'security_event', `revoked_key:${id}`, ({ count }) => count === came)
  expect(alert).toMatchObject({ id: alertId, state: 'acknowledged' })
})
