import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { command, enter, register, untilStatus } from '../broker/support/scene.ts'
import type { Device } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { alertsOf, untilLookedAt, untilOpen, untilResolved } from './support.ts'

// The alerts follow the feed, which another test's open transaction on a shared server would hold up.
let server: TestServer

beforeAll(async () => {
  server = await startServer({}, { ownPostgres: true })
})
afterAll(() => server.stop())

let joined = 0
let device: Device
beforeEach(async () => {
  const id = `d${++joined}`
  device = await enter(server, id, await register(server, id, { zones: [`Z${joined}`] }), { journalId: `j${joined}` })
  return () => device.end()
})

/** Sends a command to the device, which acknowledges it. */
async function delivered(body: Record<string, unknown> = {}): Promise<string> {
  const id = await command(server, device.clientId, body)
  device.ack((await device.nextCommand()).messageId)
  return id
}

async function failed(status: 'failed' | 'rejected' = 'failed', error?: object): Promise<string> {
  const id = await delivered()
  await device.report(id, { status, ...(error ? { error } : {}) })
  return id
}

describe('outcome_unknown', () => {
  async function doubted(body: Record<string, unknown> = {}): Promise<string> {
    const id = await delivered(body)
    await device.report(id, { status: 'outcome_unknown', attempt: 1 })
    return id
  }

  test('is opened for the command, in words', async () => {
    const id = await doubted({ action: 'stamp' })
    expect(await untilOpen(server, 'outcome_unknown', id)).toMatchObject({
      severity: 'critical',
      state: 'open',
      commandId: id,
      clientId: device.clientId,
      count: 1,
      message: `Nobody can tell whether stamp happened on ${device.clientId}. Look there, then resolve it.`,
      details: { action: 'stamp', clients: [device.clientId] },
    })
    const { body } = await server.api.get(`/commands/${id}/explain`)
    expect(body.items[0].message).toContain(`signalbox commands resolve ${id} ${device.clientId}`)
  })

  test('is opened when time ran out', async () => {
    const id = await delivered({ timeoutSeconds: 1 })
    await device.report(id, { status: 'running' })
    const alert = await untilOpen(server, 'outcome_unknown', id)
    expect(await untilStatus(server, id, 'outcome_unknown')).toMatchObject({ error: { code: 'TIMEOUT' } })
    expect(Date.parse(alert.lastAt)).toBeLessThanOrEqual(Date.parse(alert.openedAt))
  })

  test.each([
    [
      'a late report',
      async (id: string) => {
        await device.report(id, { status: 'completed', attempt: 1 })
      },
    ],
    ['resolve', (id: string) => resolve(id, device.clientId, 'failed')],
    ['resolve with another run', (id: string) => resolve(id, device.clientId, 'retry')],
    [
      'retry',
      async (id: string) => {
        expect((await server.api.post(`/commands/${id}/retry`)).body).toEqual({ retried: 1, skipped: 0 })
      },
    ],
  ])('ends by %s', async (_name, ending) => {
    const id = await doubted()
    const alert = await untilOpen(server, 'outcome_unknown', id)
    await ending(id)
    expect(await untilResolved(server, alert)).toMatchObject({
      state: 'resolved',
      count: 0,
      resolution: 'no outcome is unknown any more',
    })
    expect(await alertsOf(server, `commandId=${id}`)).toEqual([])
  })

  test('a new doubt about the same command is a new alert', async () => {
    const id = await doubted()
    const first = await untilOpen(server, 'outcome_unknown', id)
    await resolve(id, device.clientId, 'retry')
    await untilResolved(server, first)
    device.ack((await device.nextCommand()).messageId)
    await device.report(id, { status: 'outcome_unknown', attempt: 2 })
    const second = await untilOpen(server, 'outcome_unknown', id)
    expect(second.id).not.toBe(first.id)
    expect((await alertsOf(server, `commandId=${id}&state=all`)).map((alert) => alert.id)).toEqual([
      second.id,
      first.id,
    ])
  })

  test('what was known again before anybody looked is no alert', async () => {
    // The look is held up: both happen before it.
    const id = await whileNobodyLooks(async () => {
      const id = await doubted()
      await device.report(id, { status: 'completed', attempt: 1 })
      return id
    })
    await untilLookedAt(server)
    expect(await alertsOf(server, `commandId=${id}&state=all`)).toEqual([])
  })

  test('counts the clients of a group, in one alert, up and down', async () => {
    const zone = `Z${joined}`
    const others = await Promise.all(
      ['a', 'b'].map(async (letter) => {
        const id = `${device.clientId}-${letter}`
        return enter(server, id, await register(server, id, { zones: [zone] }), { journalId: id })
      }),
    )
    const devices = [device, ...others]
    const { body } = await server.api.post('/commands', { zone, action: 'lock' })
    for (const one of devices) one.ack((await one.nextCommand()).messageId)
    for (const [index, one] of devices.entries()) {
      await one.report(body.id, { status: 'outcome_unknown', attempt: 1 })
      await untilOpen(server, 'outcome_unknown', body.id, ({ count }) => count === index + 1)
    }
    const alert = await untilOpen(server, 'outcome_unknown', body.id)
    const ids = devices.map(({ clientId }) => clientId).sort()
    expect(alert.message).toBe(
      `Nobody can tell whether lock happened on 3 of 3 clients of zone ${zone}: ${ids.join(', ')}. Look there, then resolve it.`,
    )
    expect(alert.clientId).toBeUndefined()
    await device.report(body.id, { status: 'completed', attempt: 1 })
    await untilOpen(server, 'outcome_unknown', body.id, ({ id, count }) => id === alert.id && count === 2)
    await resolve(body.id, ids[1] as string, 'completed')
    expect((await untilOpen(server, 'outcome_unknown', body.id, ({ count }) => count === 1)).details.clients).toEqual([
      ids[2],
    ])
    await resolve(body.id, ids[2] as string, 'failed')
    await untilResolved(server, alert)
    expect(await alertsOf(server, `commandId=${body.id}&state=all`)).toHaveLength(1)
    await Promise.all(others.map((one) => one.end()))
  })

  test('a deleted client leaves doubts that a person can end', async () => {
    const id = await delivered()
    await server.api.send('DELETE', `/clients/${device.clientId}`)
    const alert = await untilOpen(server, 'outcome_unknown', id)
    expect((await server.api.post(`/commands/${id}/executions/${device.clientId}/resolve`, RETRY)).status).toBe(404)
    await resolve(id, device.clientId, 'failed')
    await untilResolved(server, alert)
  })

  test('ends when the command is removed with its history', async () => {
    const id = await doubted()
    const alert = await untilOpen(server, 'outcome_unknown', id)
    await server.sql('delete from executions where command_id = $1', [id])
    await server.sql('delete from commands where id = $1', [id])
    await untilResolved(server, alert)
  })

  const RETRY = { outcome: 'retry', note: 'test' }
  async function resolve(id: string, clientId: string, outcome: string): Promise<void> {
    const path = `/commands/${id}/executions/${clientId}/resolve`
    const { status, body } = await server.api.post(path, { outcome, note: 'looked at it' })
    expect(status, JSON.stringify(body)).toBe(200)
  }
})

/** Somebody else has the cursor: the alerts are looked for, and cannot be stored, until `work` is done. */
async function whileNobodyLooks<T>(work: () => Promise<T>): Promise<T> {
  await server.sql("update feed_cursors set name = 'hidden' where name = 'alerts'")
  try {
    return await work()
  } finally {
    await server.sql("update feed_cursors set name = 'alerts' where name = 'hidden'")
  }
}

describe('command_failed', () => {
  test('is one alert per client: it counts, and shows the last error and the last commands', async () => {
    const first = await failed('failed', { code: 'JAM', message: 'paper is stuck' })
    const alert = await untilOpen(server, 'command_failed', device.clientId)
    expect(alert).toMatchObject({
      severity: 'warning',
      state: 'open',
      clientId: device.clientId,
      count: 1,
      message: `A command failed on ${device.clientId}: JAM: paper is stuck`,
      details: { error: { code: 'JAM', message: 'paper is stuck' }, commands: [first] },
    })
    expect(alert.commandId).toBeUndefined()
    const ids = [first]
    for (let n = 0; n < 12; n++) ids.unshift(await failed(n % 2 ? 'failed' : 'rejected'))
    const later = await untilOpen(server, 'command_failed', device.clientId, ({ count }) => count === 13)
    expect(later).toMatchObject({ id: alert.id, openedAt: alert.openedAt })
    expect(later.details.commands).toEqual(ids.slice(0, 10))
    expect(Date.parse(later.lastAt)).toBeGreaterThan(Date.parse(alert.lastAt))
    expect(later.message).toBe(`A command failed on ${device.clientId}: NONE: no reason was given`)
  })

  test('is not opened by a failure that is tried again', async () => {
    await server.api.send('PUT', '/actions/again', { delivery: 'at_least_once', maxRetries: 1 })
    const id = await delivered({ action: 'again' })
    await device.report(id, { status: 'failed', attempt: 1 })
    await until(async () => {
      const { body } = await server.api.get(`/commands/${id}`)
      return body.attempt === 2
    })
    await untilLookedAt(server)
    expect(await alertsOf(server, `clientId=${device.clientId}&state=all`)).toEqual([])
    await server.api.post(`/commands/${id}/cancel`)
  })

  test('ends when it is acknowledged, and by nothing else; the next failure is a new alert', async () => {
    const id = await failed()
    const alert = await untilOpen(server, 'command_failed', device.clientId)
    await server.api.post(`/commands/${id}/retry`)
    device.ack((await device.nextCommand()).messageId)
    await device.report(id, { status: 'completed', attempt: 2 })
    await untilLookedAt(server)
    expect(await untilOpen(server, 'command_failed', device.clientId)).toEqual(alert)
    const { status, body } = await server.api.post(`/alerts/${alert.id}/acknowledge`, { note: 'new paper' })
    expect(status).toBe(200)
    expect(body).toMatchObject({
      id: alert.id,
      state: 'resolved',
      acknowledgedBy: 'admin',
      acknowledgedAt: body.resolvedAt,
      note: 'new paper',
      resolution: 'acknowledged',
      count: 1,
    })
    await failed()
    expect(await untilOpen(server, 'command_failed', device.clientId)).toMatchObject({ count: 1, state: 'open' })
  })
})
