import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  command,
  commandsOf,
  enter,
  logged,
  own,
  register,
  returnCodeOf,
  untilStatus,
} from '../broker/support/scene.ts'
import { connectDevice } from '../support/device.ts'
import { openStream } from '../support/event-source.ts'
import { httpClient } from '../support/http.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { alertsOf, untilLookedAt, untilOpen, untilResolved } from './support.ts'

const LOST_SECONDS = 0.5

let server: TestServer

beforeAll(async () => {
  server = await startServer(
    { ALERT_CLIENT_LOST_SECONDS: LOST_SECONDS, HTTP_PING_TIMEOUT_SECONDS: 0.1 },
    { ownPostgres: true },
  )
})
afterAll(() => server.stop())

const presenceOf = async (id: string) => (await server.api.get(`/clients/${id}`)).body
const untilOffline = (id: string) =>
  until(async () => (await presenceOf(id)).presence === 'offline', `${id} is offline`)

describe('client_lost', () => {
  test('is opened for a client that is offline for too long while work waits, and moves nothing', async () => {
    await register(server, 'l1')
    const id = await command(server, 'l1')
    const alert = await untilOpen(server, 'client_lost', 'l1')
    const { presenceSince } = await presenceOf('l1')
    expect(alert).toMatchObject({
      severity: 'warning',
      state: 'open',
      clientId: 'l1',
      count: 1,
      message: `l1 is offline since ${presenceSince} while work waits for it.`,
      details: { offlineSince: presenceSince },
    })
    expect(Date.parse(alert.openedAt) - Date.parse(presenceSince)).toBeGreaterThanOrEqual(LOST_SECONDS * 1000)
    await command(server, 'l1')
    await untilLookedAt(server)
    expect(await untilOpen(server, 'client_lost', 'l1')).toEqual(alert)
    expect((await server.api.get(`/commands/${id}`)).body.status).toBe('pending')
  })

  test('is not opened without work, nor while the client is there', async () => {
    await register(server, 'idle')
    const device = await enter(server, 'there', await register(server, 'there'))
    await command(server, 'there')
    await device.nextCommand()
    await untilStale('idle', 'there')
    await untilLookedAt(server)
    for (const id of ['idle', 'there']) expect(await alertsOf(server, `clientId=${id}&state=all`)).toEqual([])
    await device.end()
  })

  const untilStale = (...ids: string[]) =>
    until(async () => {
      const [row] = await server.sql(
        `select count(*)::int as n from clients where id = any($1) and presence_since < clock_timestamp() - make_interval(secs => $2)`,
        [ids, LOST_SECONDS + 0.2],
      )
      return row?.n === ids.length
    }, 'it would be lost by now')

  test.each(['delivered', 'running'])('also waits for what is %s', async (status) => {
    const key = await register(server, `l-${status}`)
    const device = await enter(server, `l-${status}`, key, { journalId: 'j' })
    const id = await command(server, `l-${status}`)
    device.ack((await device.nextCommand()).messageId)
    if (status === 'running') await device.report(id, { status })
    await untilStatus(server, id, status)
    device.drop()
    const alert = await untilOpen(server, 'client_lost', `l-${status}`)
    // Its report may come over a connection that is none of a session: nothing waits any more.
    const reporter = await connectDevice(server, {
      clientId: `l-${status}~pub`,
      username: `l-${status}`,
      password: key,
    })
    await reporter.publish(own(`l-${status}`, `commands/${id}/status`), { status: 'completed' })
    expect(await untilResolved(server, alert)).toMatchObject({
      resolution: 'nothing waits for the client any more',
      count: 0,
    })
    reporter.drop()
  })

  test('ends when the client is back, and begins anew when it is lost again', async () => {
    const key = await register(server, 'back')
    await server.api.send('PUT', '/actions/again', { delivery: 'at_least_once' })
    const id = await command(server, 'back', { action: 'again' })
    const alert = await untilOpen(server, 'client_lost', 'back')
    const device = await enter(server, 'back', key)
    expect(await untilResolved(server, alert)).toMatchObject({ resolution: 'the client is back' })
    await device.nextCommand()
    device.drop()
    await untilOffline('back')
    expect((await untilOpen(server, 'client_lost', 'back')).id).not.toBe(alert.id)
    await server.api.post(`/commands/${id}/cancel`)
  })

  test('ends also when the client was back for a moment that nobody looked at', async () => {
    const key = await register(server, 'moment')
    await command(server, 'moment')
    const alert = await untilOpen(server, 'client_lost', 'moment')
    await server.sql("update feed_cursors set name = 'hidden' where name = 'alerts'")
    const device = await connectDevice(server, { clientId: 'moment', password: key })
    await device.end()
    await untilOffline('moment')
    await server.sql("update feed_cursors set name = 'alerts' where name = 'hidden'")
    expect(await untilResolved(server, alert)).toMatchObject({ resolution: 'the client is back' })
    // It is offline again, and lost again after its time.
    await untilOpen(server, 'client_lost', 'moment')
  })

  test('ends when nothing waits any more', async () => {
    await register(server, 'nothing')
    const id = await command(server, 'nothing')
    const alert = await untilOpen(server, 'client_lost', 'nothing')
    await server.api.post(`/commands/${id}/cancel`)
    expect(await untilResolved(server, alert)).toMatchObject({ resolution: 'nothing waits for the client any more' })
  })

  test('ends when the client is deleted', async () => {
    await register(server, 'deleted')
    await command(server, 'deleted')
    const alert = await untilOpen(server, 'client_lost', 'deleted')
    await server.api.send('DELETE', '/clients/deleted')
    expect(await untilResolved(server, alert)).toMatchObject({
      resolution: expect.stringMatching(/deleted|nothing waits/),
    })
  })

  test('an HTTP client that stays silent is lost, and back when it pings', async () => {
    const key = await register(server, 'web')
    const stream = await openStream(`${server.http}/api/events/web`, key)
    await command(server, 'web')
    const alert = await untilOpen(server, 'client_lost', 'web')
    const web = httpClient(server.http, key)
    await until(async () => {
      await web.post('/clients/web/ping', {})
      return (await alertsOf(server, 'state=resolved&clientId=web')).some(({ id }) => id === alert.id)
    }, 'it is back')
    stream.close()
  })
})

describe('client_refused', () => {
  const refusedOf = (id: string, query = '') => alertsOf(server, `kind=client_refused&clientId=${id}&${query}`)

  async function login(clientId: string, password: string, more: Record<string, unknown> = {}): Promise<number> {
    const device = await connectDevice(server, { clientId, password, ...more })
    device.drop()
    return device.returnCode
  }

  test('counts bad keys in one alert, and ends when the client logs in', async () => {
    const key = await register(server, 'r1')
    expect(await login('r1', 'sbk_wrong')).toBe(4)
    const alert = await untilOpen(server, 'client_refused', 'r1')
    expect(alert).toMatchObject({
      severity: 'warning',
      state: 'open',
      clientId: 'r1',
      count: 1,
      message: 'r1 is refused at its login: bad key for client r1',
      details: { cause: 'login' },
    })
    for (let n = 0; n < 4; n++) await login('r1', 'sbk_wrong')
    const again = await untilOpen(server, 'client_refused', 'r1', ({ count }) => count === 5)
    expect(again).toMatchObject({ id: alert.id, openedAt: alert.openedAt })
    expect(await login('r1', key)).toBe(0)
    expect(await untilResolved(server, alert)).toMatchObject({ resolution: 'the client has logged in', count: 5 })
    expect(await refusedOf('r1', 'state=all')).toHaveLength(1)
  })

  test('says why: another client id, a will of its own making, MQTT 5', async () => {
    const key = await register(server, 'r2')
    const last = async (count: number) =>
      (await untilOpen(server, 'client_refused', 'r2', (alert) => alert.count === count)).details.reason
    expect(await login('other', key, { username: 'r2' })).toBe(5)
    expect(await last(1)).toBe("client id other is not r2's")
    expect(await login('r2', key, { will: { topic: commandsOf('r1'), payload: Buffer.from('x') } })).toBe(5)
    expect(await last(2)).toMatch(/only the server publishes to it/)
    expect(await returnCodeOf(server, { clientId: 'r2', username: 'r2', protocolVersion: 5 })).not.toBe(0)
    expect(await last(3)).toBe('it speaks MQTT 5; choose 3.1.1')
    expect(await login('r2', key)).toBe(0)
  })

  test('a reason that quotes what PostgreSQL cannot keep is kept without it', async () => {
    const key = await register(server, 'r3')
    // It is cut off after 300 UTF-16 units, in the middle of a pair.
    const topic = `${'x'.repeat(291)}😀😀😀😀😀`
    await login('r3', key, { will: { topic, payload: Buffer.from('x') } })
    const { details } = await untilOpen(server, 'client_refused', 'r3')
    expect(details.reason).toMatch(/^will on x{291}\ufffd$/)
  })

  test('a disabled client is refused at both doors, until it is enabled and comes', async () => {
    const key = await register(server, 'r4')
    await server.api.post('/clients/r4/disable')
    expect(await login('r4', key)).toBe(5)
    const alert = await untilOpen(server, 'client_refused', 'r4')
    expect(alert.details.reason).toBe('client r4 is disabled')
    expect((await httpClient(server.http, key).post('/clients/r4/ping', {})).status).toBe(403)
    await untilOpen(server, 'client_refused', 'r4', ({ count }) => count === 2)
    await server.api.post('/clients/r4/enable')
    await untilLookedAt(server)
    expect(await refusedOf('r4')).toMatchObject([{ id: alert.id, state: 'open' }])
    const stream = await openStream(`${server.http}/api/events/r4`, key)
    expect(await untilResolved(server, alert)).toMatchObject({ resolution: 'the client has logged in' })
    stream.close()
  })

  test("an HTTP client that asks for another's stream is refused", async () => {
    const key = await register(server, 'r5')
    expect((await httpClient(server.http, key).get('/events/r4')).status).toBe(403)
    expect(await untilOpen(server, 'client_refused', 'r5')).toMatchObject({
      message: 'r5 is refused at its login: it asks for client r4',
    })
    expect(await refusedOf('r4')).toEqual([])
  })

  test('a subscription at QoS 0 is refused until the topic is granted, however often the client logs in', async () => {
    const key = await register(server, 'r6')
    const device = await connectDevice(server, { clientId: 'r6', password: key })
    expect(await device.subscribe(commandsOf('r6'), 0)).toEqual([128])
    const alert = await untilOpen(server, 'client_refused', 'r6')
    expect(alert).toMatchObject({
      message: 'r6 gets no commands: a commands topic asked for at QoS 0: subscribe at QoS 1',
      details: { cause: 'qos_0' },
    })
    await device.end()
    const again = await connectDevice(server, { clientId: 'r6', password: key })
    await untilLookedAt(server)
    expect(await refusedOf('r6')).toMatchObject([{ id: alert.id, state: 'open', count: 1 }])
    expect(await again.subscribe(commandsOf('r6'), 0)).toEqual([128])
    await untilOpen(server, 'client_refused', 'r6', ({ id, count }) => id === alert.id && count === 2)
    expect(await again.subscribe(commandsOf('r6'))).toEqual([1])
    expect(await untilResolved(server, alert)).toMatchObject({ resolution: 'its commands topic is granted' })
    await again.end()
  })

  test('ends when the client is deleted', async () => {
    await register(server, 'r7')
    await login('r7', 'sbk_wrong')
    const alert = await untilOpen(server, 'client_refused', 'r7')
    await server.api.send('DELETE', '/clients/r7')
    expect(await untilResolved(server, alert)).toMatchObject({ resolution: 'the client was deleted' })
    await login('r7', 'sbk_wrong')
    await untilLookedAt(server)
    expect(await refusedOf('r7')).toEqual([])
  })

  test('a wrong key and then the right one, before anybody looked, is no alert', async () => {
    const key = await register(server, 'r8')
    await server.sql("update feed_cursors set name = 'hidden' where name = 'alerts'")
    expect(await login('r8', 'sbk_wrong')).toBe(4)
    expect(await login('r8', key)).toBe(0)
    await server.sql("update feed_cursors set name = 'alerts' where name = 'hidden'")
    await untilLookedAt(server)
    expect(await refusedOf('r8', 'state=all')).toEqual([])
  })

  test("names that are no client's raise nothing", async () => {
    for (const name of ['nobody', 'no client', 'x'.repeat(65), 'admin', '../r1']) {
      expect(await login(name, 'sbk_wrong')).toBe(4)
    }
    expect(await login('tool', 'sbt_wrong', { username: 'admin' })).toBe(4)
    // A principal's tool under a client's id: the client itself was not refused.
    await register(server, 'r9')
    expect(await login('r9', ADMIN_TOKEN, { username: 'admin' })).toBe(5)
    await untilLookedAt(server)
    const subjects = (await alertsOf(server, 'kind=client_refused&state=all')).map(({ subject }) => subject)
    expect(subjects.filter((subject) => !/^r[1-8]$/.test(subject))).toEqual([])
    expect(logged(server, 'look for alerts failed').filter(({ err }) => !/cursor/.test(JSON.stringify(err)))).toEqual(
      [],
    )
  })

  test('a device that gives its key for its client id has not published it', async () => {
    const key = await register(server, 'mixed-up')
    expect(await login(key, key, { username: 'mixed-up' })).toBe(5)
    const alert = await untilOpen(server, 'client_refused', 'mixed-up')
    expect(alert.details.reason).toBe("client id sbk_… is not mixed-up's")
    const events = await server.sql('select data from events where client_id = $1', ['mixed-up'])
    expect(JSON.stringify([alert, events])).not.toContain(key)
    expect(await login('mixed-up', key)).toBe(0)
    await untilResolved(server, alert)
  })
})
