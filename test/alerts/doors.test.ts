import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Alert } from '../../schemas/alerts.ts'
import { createPrincipal, expectProblem, grantEverything, readAll } from '../api/support.ts'
import { command, register } from '../broker/support/scene.ts'
import { cliFor } from '../cli/support/run.ts'
import { connectDevice, ROOT } from '../support/device.ts'
import { openStream } from '../support/event-source.ts'
import { httpClient } from '../support/http.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { alertsOf, untilOpen, untilResolved } from './support.ts'

let server: TestServer
let unknown: string

beforeAll(async () => {
  server = await startServer({}, { ownPostgres: true })
  unknown = await fail('a1', 'outcome_unknown')
  await untilOpen(server, 'outcome_unknown', unknown)
  for (const clientId of ['a2', 'a3']) {
    await fail(clientId, 'failed')
    await untilOpen(server, 'command_failed', clientId)
  }
})
afterAll(() => server.stop())

/** A command that a client of its own reports about, from a connection that is none of a session. */
async function fail(clientId: string, status: string): Promise<string> {
  const key = await register(server, clientId)
  const device = await connectDevice(server, { clientId, password: key })
  await device.subscribe(`${ROOT}/clients/${clientId}/commands`)
  const id = await command(server, clientId)
  device.ack((await device.nextCommand()).messageId)
  await device.report(id, { status, attempt: 1, error: { code: 'JAM', message: 'stuck' } })
  await device.end()
  return id
}

const about = (items: Alert[]) => items.map(({ kind, subject }) => `${kind} ${subject}`)

test('the list is newest first, filtered by state, kind, client and command, page by page', async () => {
  const all = ['command_failed a3', 'command_failed a2', `outcome_unknown ${unknown}`]
  expect(about(await alertsOf(server))).toEqual(all)
  expect(about((await readAll(server, '/alerts', 1)) as Alert[])).toEqual(all)
  expect(about((await readAll(server, '/alerts?state=all', 2)) as Alert[])).toEqual(all)
  expect(about(await alertsOf(server, 'state=open'))).toEqual(all)
  expect(about(await alertsOf(server, 'kind=command_failed'))).toEqual(all.slice(0, 2))
  expect(about(await alertsOf(server, 'clientId=a2'))).toEqual(['command_failed a2'])
  expect(about(await alertsOf(server, `commandId=${unknown}`))).toEqual([`outcome_unknown ${unknown}`])
  expect(about(await alertsOf(server, 'kind=feed_lag'))).toEqual([])

  const [, failed, doubt] = (await alertsOf(server)) as [Alert, Alert, Alert]
  await server.api.post(`/alerts/${failed.id}/acknowledge`)
  await server.api.post(`/alerts/${doubt.id}/acknowledge`)
  expect(about(await alertsOf(server, 'state=open'))).toEqual(['command_failed a3'])
  expect(about(await alertsOf(server, 'state=acknowledged'))).toEqual([`outcome_unknown ${unknown}`])
  expect(about(await alertsOf(server, 'state=resolved'))).toEqual(['command_failed a2'])
  expect(about(await alertsOf(server))).toEqual(['command_failed a3', `outcome_unknown ${unknown}`])
  expect(about(await alertsOf(server, 'state=all'))).toEqual(all)
})

test.each(['state=closed', 'kind=fire', 'clientId=%00', 'commandId=1', 'cursor=eA', 'limit=0'])(
  'a list asked for with %s is refused',
  async (query) => expectProblem(await server.api.get(`/alerts?${query}`), 400, 'INVALID_INPUT'),
)

test('every role reads; administrators, operators and technicians acknowledge', async () => {
  for (const role of ['viewer', 'technician', 'operator', 'admin'] as const) {
    const clientId = `by-${role}`
    await fail(clientId, 'rejected')
    const alert = await untilOpen(server, 'command_failed', clientId)
    const api = httpClient(server.http, await createPrincipal(server, role, `${role}-1`))
    if (role === 'operator') await grantEverything(server, `${role}-1`)
    expect((await api.get(`/alerts?clientId=${clientId}`)).body.items).toEqual([alert])
    const answer = await api.post(`/alerts/${alert.id}/acknowledge`)
    if (role === 'viewer') expectProblem(answer, 403, 'FORBIDDEN')
    else expect(answer).toMatchObject({ status: 200, body: { id: alert.id, acknowledgedBy: `${role}-1` } })
  }
})

test('an alert that is acknowledged stays until its reason is gone, and the first who saw it stays', async () => {
  const id = await fail('stays', 'outcome_unknown')
  const { id: alertId } = await untilOpen(server, 'outcome_unknown', id)
  const first = await server.api.post(`/alerts/${alertId}/acknowledge`, { note: 'on my way' })
  expect(first.body).toMatchObject({ state: 'acknowledged', acknowledgedBy: 'admin', note: 'on my way' })
  expect(first.body.resolvedAt).toBeUndefined()
  const second = await server.api.post(`/alerts/${alertId}/acknowledge`, { note: 'me too' })
  expect(second).toMatchObject({ status: 200, body: first.body })
  await server.api.post(`/commands/${id}/executions/stays/resolve`, { outcome: 'failed', note: 'looked' })
  expect(await untilResolved(server, first.body as Alert)).toMatchObject({ acknowledgedBy: 'admin', note: 'on my way' })
})

test('an alert that ended by itself can still be acknowledged: it is known who saw it', async () => {
  const id = await fail('late', 'outcome_unknown')
  const alert = await untilOpen(server, 'outcome_unknown', id)
  await server.api.post(`/commands/${id}/executions/late/resolve`, { outcome: 'completed', note: 'looked' })
  const resolved = await untilResolved(server, alert)
  const { body } = await server.api.post(`/alerts/${alert.id}/acknowledge`)
  expect(body).toEqual({ ...resolved, acknowledgedAt: expect.any(String), acknowledgedBy: 'admin' })
})

test('bad input is refused', async () => {
  const nobody = '0198c0de-0000-7000-8000-000000000000'
  expectProblem(await server.api.post(`/alerts/${nobody}/acknowledge`), 404, 'NOT_FOUND')
  expectProblem(await server.api.post('/alerts/1/acknowledge'), 404, 'NOT_FOUND')
  for (const body of [{ note: '' }, { note: 5 }, { note: 'x'.repeat(1001) }, { notes: 'x' }, '{"note":"\\u0000"}']) {
    expectProblem(await server.api.post(`/alerts/${nobody}/acknowledge`, body), 400, 'INVALID_INPUT')
  }
})

test("the feed and the command's timeline show what became of an alert, in order", async () => {
  const stream = await openStream(
    `${server.http}/api/events?types=alert.opened,alert.acknowledged,alert.resolved&clientId=told`,
    ADMIN_TOKEN,
  )
  const id = await fail('told', 'outcome_unknown')
  const alert = await untilOpen(server, 'outcome_unknown', id)
  await server.api.post(`/alerts/${alert.id}/acknowledge`, { note: 'n' })
  await server.api.post(`/commands/${id}/executions/told/resolve`, { outcome: 'failed', note: 'looked' })
  const failed = await untilOpen(server, 'command_failed', 'told')
  await server.api.post(`/alerts/${failed.id}/acknowledge`)
  const expected = [
    { type: 'alert.opened', commandId: id, data: { alertId: alert.id, severity: 'critical', count: 1 } },
    { type: 'alert.acknowledged', commandId: id, data: { alertId: alert.id, by: 'admin', note: 'n' } },
    { type: 'alert.opened', data: { alertId: failed.id, kind: 'command_failed', message: failed.message } },
    { type: 'alert.resolved', commandId: id, data: { alertId: alert.id, kind: 'outcome_unknown' } },
    { type: 'alert.acknowledged', data: { alertId: failed.id, by: 'admin' } },
    { type: 'alert.resolved', data: { alertId: failed.id, resolution: 'acknowledged' } },
  ]
  await until(() => stream.messages.length >= expected.length, 'all events')
  stream.close()
  const seen = stream.messages.map(({ data }) => data)
  expect(seen).toHaveLength(expected.length)
  expect(seen).toEqual(
    expect.arrayContaining(
      expected.map((event) => expect.objectContaining({ ...event, data: expect.objectContaining(event.data) })),
    ),
  )
  const order = (alertId: string) => seen.flatMap(({ type, data }) => (data.alertId === alertId ? type : []))
  for (const { id } of [alert, failed]) {
    expect(order(id)).toEqual(['alert.opened', 'alert.acknowledged', 'alert.resolved'])
  }
  const timeline = (await server.api.get(`/commands/${id}/timeline`)).body.items as { type: string }[]
  expect(timeline.map(({ type }) => type).filter((type) => type.startsWith('alert.'))).toEqual(order(alert.id))
})

test('the command line lists and acknowledges', async () => {
  const cli = cliFor(server)
  await fail('cli', 'failed')
  const alert = await untilOpen(server, 'command_failed', 'cli')
  const list = await cli('alerts list --client cli')
  expect(list.stdout).toMatch(
    new RegExp(`^ID .*\n${alert.id} .* warning +open +command_failed +1 +A command failed on cli: JAM: stuck\n$`),
  )
  expect((await cli.json('alerts list --kind command_failed --client cli')).items).toEqual([alert])
  expect((await cli(`alerts list --command ${alert.id}`)).stdout).toBe('no alerts\n')
  const done = await cli(`alerts acknowledge ${alert.id} --note`, 'new paper')
  expect(done.stdout).toMatch(/^state +resolved$/m)
  expect(done.stdout).toMatch(/^note +new paper$/m)
  expect((await cli.json('alerts list --client cli --state resolved')).items).toMatchObject([{ note: 'new paper' }])
  expect(await cli('alerts list --state closed')).toMatchObject({ code: 2, stdout: '' })
  expect((await cli('alerts acknowledge 1')).code).toBe(3)
}, 60_000)
