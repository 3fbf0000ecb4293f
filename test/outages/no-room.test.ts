import { afterAll, beforeAll, expect, test } from 'vitest'
import { expectProblem } from '../api/support.ts'
import { startDevice } from '../support/device.ts'
import { httpClient } from '../support/http.ts'
import { until } from '../support/until.ts'
import { type Breakable, healthy, IN_TIME_MS, startBreakable, timed } from './support.ts'

let scene: Breakable
let device: Awaited<ReturnType<typeof startDevice>>
let id: string

/** As PostgreSQL says it when a table cannot grow: what is there can be read, and nothing can be added. */
const NO_ROOM = `
  create function no_room() returns trigger language plpgsql as
    $$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
  create trigger no_room before insert on events for each statement execute function no_room()`
const ROOM = 'drop function no_room cascade'

beforeAll(async () => {
  scene = await startBreakable()
  device = await startDevice(scene.server, 'c1')
  const created = await scene.server.api.post('/commands', { clientId: 'c1', action: 'print' })
  id = created.body.id
  device.ack((await device.nextCommand()).messageId)
  await device.report(id, { status: 'running' })
  await scene.database.query(NO_ROOM)
})
afterAll(() => scene.stop())

test('what reads is answered, and what writes is UNAVAILABLE in time', async () => {
  const { server } = scene
  expect((await server.api.get(`/commands/${id}`)).status).toBe(200)
  const agent = httpClient(server.http, device.clientKey)
  const asked = {
    create: () => server.api.post('/commands', { clientId: 'c1', action: 'print' }),
    cancel: () => server.api.post(`/commands/${id}/cancel`, {}),
    register: () => server.api.post('/clients', { id: 'c9' }),
    change: () => server.api.send('PATCH', '/clients/c1', { name: 'x' }),
    report: () => agent.send('PUT', `/commands/${id}/status`, { status: 'accepted' }),
  }
  for (const [name, ask] of Object.entries(asked)) {
    const { answer, ms } = await timed(ask())
    expect(answer.status, name).toBe(503)
    expectProblem(answer, 503, 'UNAVAILABLE')
    expect(ms, name).toBeLessThan(IN_TIME_MS)
  }
})

test('also while reports of devices wait', async () => {
  const { server } = scene
  let acknowledged = false
  const reported = device.report(id, { status: 'running', progress: { done: 1 } }).then(() => {
    acknowledged = true
  })
  const agent = httpClient(server.http, device.clientKey)
  for (const ask of [
    () => server.api.post(`/commands/${id}/cancel`, {}),
    () => agent.send('PUT', `/commands/${id}/status`, { status: 'accepted' }),
  ]) {
    const { answer, ms } = await timed(ask())
    expectProblem(answer, 503, 'UNAVAILABLE')
    expect(ms).toBeLessThan(IN_TIME_MS)
  }
  expect((await fetch(`${server.http}/health`)).status).toBe(503)
  expect((await fetch(`${server.http}/health/ready`)).status).toBe(503)
  expect(acknowledged).toBe(false)

  await scene.database.query(ROOM)
  await reported
  await healthy(server)
  // Nothing of what was refused is done later.
  const events = await scene.database.query(
    `select type from events where command_id = $1 and type in ('execution.cancel_requested', 'execution.reported')`,
    [id],
  )
  expect(events).toEqual([])
  expect((await server.api.post(`/commands/${id}/cancel`, {})).body).toMatchObject({ requested: 1 })
  await until(() => device.received().some(({ payload }) => payload.type === 'cancel'), 'the cancel')
})
