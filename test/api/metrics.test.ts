import { readFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Alert, AlertKind } from '../../schemas/alerts.ts'
import { alertsOf, untilOpen, untilResolved } from '../alerts/support.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { startNetwork } from '../support/database-faults.ts'
import { connectDevice, ROOT, startDevice } from '../support/device.ts'
import { parseExposition } from '../support/exposition.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import { createPrincipal } from './support.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())
// The end of a session is committed after its connection has gone: the next test counts from zero.
afterEach(() => until(async () => (await series()).get('connected_clients') === 0, 'nobody is connected'))

const metricsOf = ({ http }: TestServer, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(new URL('/metrics', http), { headers })

async function scrape(of = server) {
  const response = await metricsOf(of)
  expect(response.status).toBe(200)
  return parseExposition(await response.text())
}

/** Every series with its value, as `name{label="value"}` without the prefix. */
async function series(of = server): Promise<Map<string, number>> {
  const samples = [...(await scrape(of)).values()].flatMap((family) => family.samples)
  return new Map(
    samples.map(({ name, labels, value }) => {
      const inner = Object.entries(labels).map(([label, text]) => `${label}="${text}"`)
      return [name.replace('signalbox_', '') + (inner.length > 0 ? `{${inner.join(',')}}` : ''), value]
    }),
  )
}

/** What the process does by itself, and histograms' buckets: what they count is in their `_count`. */
const ASIDE = /^(process|event_loop|batch|feed|alerts)_|_bucket|_sum/

/** By how much each series has moved since; what did not is left out. */
async function moved(before: Map<string, number>, of = server): Promise<Record<string, number>> {
  const after = await series(of)
  return Object.fromEntries(
    [...after]
      .map(([name, value]) => [name, value - (before.get(name) ?? 0)] as const)
      .filter(([name, by]) => by !== 0 && !ASIDE.test(name)),
  )
}

test("it is Prometheus' text format, and asks for no login", async () => {
  const response = await metricsOf(server)
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  expect((await scrape()).size).toBeGreaterThan(20)
})

test('names follow the conventions, and docs/operating.md explains each', async () => {
  const documented = new Set(readFileSync('docs/operating.md', 'utf8').match(/`signalbox_\w+/g))
  const families = [...(await scrape()).values()]
  for (const { name, type, help } of families) {
    expect(name, name).toMatch(/^signalbox_[a-z][a-z_]*[a-z]$/)
    expect(name.endsWith('_total'), name).toBe(type === 'counter')
    expect(name, name).not.toMatch(/milli|micro|_ms$|_minutes|_hours|_days|kilo|mega|percent|counter|gauge|histogram/)
    expect(help.length, name).toBeGreaterThan(5)
    expect(documented, name).toContain(`\`${name}`)
  }
  // A server without others has no line to them.
  const here = [...documented].filter((name) => !name.startsWith('`signalbox_line_'))
  expect(here).toHaveLength(families.length)
})

test("a command's whole way moves exactly its own series, by the times that the API tells", async () => {
  await server.api.send('PUT', '/actions/print', { delivery: 'at_most_once' })
  const device = await startDevice(server, 'way-1')
  await until(async () => (await series()).get('connected_clients') === 1, 'connected')
  const before = await series()
  const { body } = await server.api.post('/commands', { clientId: 'way-1', action: 'print' })
  const { messageId } = await device.nextCommand()
  device.ack(messageId)
  await until(
    async () => (await moved(before))['execution_stage_seconds_count{stage="puback"}'] === 1,
    'the PUBACK is counted',
  )
  await device.report(body.id, { status: 'running', attempt: 1 })
  await device.report(body.id, { status: 'completed', attempt: 1 })
  expect(await moved(before)).toEqual({
    'commands_created_total{action="print",target="client"}': 1,
    'executions_settled_total{action="print",outcome="completed"}': 1,
    'execution_stage_seconds_count{stage="claim"}': 1,
    'execution_stage_seconds_count{stage="puback"}': 1,
    'execution_stage_seconds_count{stage="start"}': 1,
    'execution_stage_seconds_count{stage="run"}': 1,
    execution_duration_seconds_count: 1,
  })
  const after = await series()
  const [execution] = (await server.api.get(`/commands/${body.id}/executions`)).body.items
  const seconds = (from: string, to: string): number => (Date.parse(to) - Date.parse(from)) / 1000
  for (const [name, took] of [
    ['execution_stage_seconds_sum{stage="claim"}', seconds(body.createdAt, execution.queuedAt)],
    ['execution_stage_seconds_sum{stage="puback"}', seconds(execution.queuedAt, execution.deliveredAt)],
    ['execution_stage_seconds_sum{stage="start"}', seconds(execution.deliveredAt, execution.startedAt)],
    ['execution_stage_seconds_sum{stage="run"}', seconds(execution.startedAt, execution.completedAt)],
    ['execution_duration_seconds_sum', seconds(body.createdAt, execution.completedAt)],
  ] as const) {
    expect((after.get(name) as number) - (before.get(name) as number), name).toBeCloseTo(took, 6)
  }
  const batches = (name: string): number => (after.get(name) ?? 0) - (before.get(name) ?? 0)
  expect(batches('batch_items_count{batcher="create"}')).toBe(1)
  expect(batches('batch_items_sum{batcher="create"}')).toBe(1)
  expect(batches('batch_seconds_count{batcher="create"}')).toBe(1)
  expect(batches('batch_items_count{batcher="ledger"}')).toBeGreaterThanOrEqual(3)
  // A repeated report moves nothing.
  await device.report(body.id, { status: 'completed', attempt: 1 })
  expect((await moved(after))['executions_settled_total{action="print",outcome="completed"}']).toBeUndefined()
  await device.end()
})

test('an outcome without the steps before it measures no steps, and one that was unknown counts again when it is known', async () => {
  const device = await startDevice(server, 'skip-1')
  const before = await series()
  const send = async (): Promise<string> =>
    (await server.api.post('/commands', { clientId: 'skip-1', action: 'print' })).body.id
  const first = await send()
  await device.nextCommand()
  await device.report(first, { status: 'completed', attempt: 1 })
  const second = await send()
  await device.nextCommand()
  await device.report(second, { status: 'outcome_unknown', attempt: 1 })
  await device.report(second, { status: 'failed', attempt: 1, error: { code: 'X', message: 'x' } })
  expect(await moved(before)).toEqual({
    'commands_created_total{action="print",target="client"}': 2,
    'executions_settled_total{action="print",outcome="completed"}': 1,
    'executions_settled_total{action="print",outcome="outcome_unknown"}': 1,
    'executions_settled_total{action="print",outcome="failed"}': 1,
    'execution_stage_seconds_count{stage="claim"}': 2,
    execution_duration_seconds_count: 2,
  })
  await device.end()
})

test('what was refused and what was repeated is not counted as created', async () => {
  await server.api.post('/clients', { id: 'refused-1' })
  const before = await series()
  const body = { clientId: 'refused-1', action: 'print' }
  for (let time = 0; time < 3; time++) await server.api.post('/commands', body, { 'Idempotency-Key': 'metrics-1' })
  await server.api.post('/commands', { clientId: 'nobody', action: 'print' })
  expect(await moved(before)).toEqual({ 'commands_created_total{action="print",target="client"}': 1 })
})

test('actions that nobody registered share a series, whatever they are called; one that is deleted is one of them', async () => {
  await server.api.post('/clients', { id: 'names-1' })
  await server.api.send('PUT', '/actions/short-lived', {})
  const send = (action: string) => server.api.post('/commands', { clientId: 'names-1', action })
  await send('short-lived')
  await server.api.send('DELETE', '/actions/short-lived')
  const before = await series()
  for (let number = 0; number < 5; number++) await send(`made-up-${number}`)
  await send('short-lived')
  expect(await moved(before)).toEqual({ 'commands_created_total{action="(unregistered)",target="client"}': 6 })
  const { body } = await server.api.get('/commands?clientId=names-1')
  await Promise.all(body.items.map(({ id }: { id: string }) => server.api.post(`/commands/${id}/cancel`, {})))
  expect((await moved(before))['executions_settled_total{action="(unregistered)",outcome="cancelled"}']).toBe(7)
})

test('refused logins are counted by their cause, and dropped messages by their code', async () => {
  const device = await startDevice(server, 'bad-1')
  await server.api.post('/clients', { id: 'bad-2' })
  const { body } = await server.api.post('/clients', { id: 'bad-3' })
  await server.api.post('/clients/bad-3/disable')
  const before = await series()
  const refused = async (options: Parameters<typeof connectDevice>[1]): Promise<void> => {
    const connection = await connectDevice(server, options)
    expect(connection.returnCode).toBeGreaterThan(0)
    await connection.whenClosed()
  }
  await refused({ clientId: 'bad-2', password: 'sbk_wrong' })
  await refused({ clientId: 'bad-2', password: '' })
  await refused({ clientId: 'bad-3', password: body.clientKey })
  await refused({ clientId: 'bad-1x', username: 'bad-1', password: device.clientKey })
  await device.publish(`${ROOT}/clients/bad-1/events/scan`, 'no JSON')
  await device.report('0198c0de-0000-7000-8000-000000000000', { status: 'completed' })
  expect(await moved(before)).toEqual({
    'mqtt_logins_refused_total{reason="bad_credentials"}': 2,
    'mqtt_logins_refused_total{reason="not_authorized"}': 2,
    'mqtt_messages_dropped_total{code="INVALID_INPUT"}': 1,
    'mqtt_messages_dropped_total{code="NOT_FOUND"}': 1,
    'security_events_total{kind="bad_key"}': 1,
    'security_events_total{kind="foreign_client_id"}': 1,
  })
  await device.end()
})

test('who is connected is told by zone and by login, and a zone that was left by all stands at 0', async () => {
  // Devices of the tests before are on their way out.
  await until(async () => (await series()).get('mqtt_connections{login="client"}') === 0, 'nobody is connected')
  const before = await series()
  const one = await startDevice(server, 'zoned-1', { zones: ['Z1', 'Z2'] })
  const two = await startDevice(server, 'zoned-2', { zones: ['Z2'] })
  const report = await connectDevice(server, { clientId: 'zoned-1~x', username: 'zoned-1', password: one.clientKey })
  const principal = await connectDevice(server, { clientId: 'pc-1', username: 'admin', password: ADMIN_TOKEN })
  expect(principal.returnCode).toBe(0)
  expect(await moved(before)).toEqual({
    connected_clients: 2,
    'zone_connected_clients{zone="Z1"}': 1,
    'zone_connected_clients{zone="Z2"}': 2,
    'mqtt_connections{login="client"}': 2,
    'mqtt_connections{login="report"}': 1,
    'mqtt_connections{login="principal"}': 1,
  })
  for (const device of [one, two, report, principal]) await device.end()
  await until(async () => (await series()).get('mqtt_connections{login="principal"}') === 0, 'the connections are gone')
  await until(async () => (await series()).get('zone_connected_clients{zone="Z2"}') === 0, 'the zone is empty')
})

test('no label names a client, a key or a token', async () => {
  const device = await startDevice(server, 'private-device-77')
  const { body } = await server.api.post('/commands', { clientId: 'private-device-77', action: 'print' })
  await device.nextCommand()
  await device.publish(`${ROOT}/clients/private-device-77/events/scan`, 'no JSON')
  const text = await (await metricsOf(server)).text()
  for (const secret of ['private-device-77', device.clientKey, ADMIN_TOKEN, body.id]) expect(text).not.toContain(secret)
  const labels = new Set(
    [...parseExposition(text).values()].flatMap(({ samples }) =>
      samples.flatMap((sample) => Object.keys(sample.labels)),
    ),
  )
  expect([...labels].sort()).toEqual(
    ['action', 'batcher', 'code', 'kind', 'le', 'login', 'outcome', 'reason', 'stage', 'target', 'zone'].sort(),
  )
  await device.end()
})

describe('other servers', () => {
  let database: TestDatabase

  beforeAll(async () => {
    database = await createTestDatabase()
  })
  afterAll(() => database.drop())

  test('two apps in one process count for themselves, and the later one knows the actions of the database', async () => {
    const first = await startServer({}, { database })
    await first.api.send('PUT', '/actions/print', {})
    await first.api.post('/clients', { id: 'c1' })
    const { body } = await first.api.post('/commands', { clientId: 'c1', action: 'print' })
    await first.stop()
    const second = await startServer({}, { database })
    const before = await series()
    await second.api.post(`/commands/${body.id}/cancel`, {})
    expect((await series(second)).get('executions_settled_total{action="print",outcome="cancelled"}')).toBe(1)
    expect(await moved(before)).toEqual({})
    await second.stop()
  })

  test('names beyond METRICS_MAX_LABEL_VALUES are counted as (other)', async () => {
    const few = await startServer({ METRICS_MAX_LABEL_VALUES: 2 })
    const devices = []
    for (const name of ['a1', 'a2', 'a3', 'a4']) {
      await few.api.send('PUT', `/actions/${name}`, {})
      devices.push(await startDevice(few, name, { zones: [`zone-${name}`] }))
      await few.api.post('/commands', { clientId: name, action: name })
    }
    await few.api.post('/commands', { clientId: 'a1', action: 'unheard-of' })
    const found = await series(few)
    const named = (pattern: RegExp) => [...found].filter(([name]) => pattern.test(name))
    expect(named(/^commands_created_total.*target="client"/)).toEqual([
      ['commands_created_total{action="(unregistered)",target="client"}', 1],
      ['commands_created_total{action="a1",target="client"}', 1],
      ['commands_created_total{action="a2",target="client"}', 1],
      ['commands_created_total{action="(other)",target="client"}', 2],
    ])
    expect(named(/^zone_connected_clients/)).toEqual([
      ['zone_connected_clients{zone="zone-a1"}', 1],
      ['zone_connected_clients{zone="zone-a2"}', 1],
      ['zone_connected_clients{zone="(other)"}', 2],
    ])
    for (const device of devices) device.drop()
    await few.stop()
  })

  test('METRICS_LOGIN asks for a token of any role', async () => {
    const closed = await startServer({ METRICS_LOGIN: 'true' })
    expect((await metricsOf(closed)).status).toBe(401)
    expect((await metricsOf(closed, { authorization: 'Bearer sbt_wrong' })).status).toBe(401)
    const token = await createPrincipal(closed, 'viewer')
    const answer = await metricsOf(closed, { authorization: `Bearer ${token}` })
    expect(answer.status).toBe(200)
    expect(parseExposition(await answer.text()).size).toBeGreaterThan(20)
    await closed.stop()
  })

  test('while the database is out of reach the scrape says so, and what is held', async () => {
    const network = await startNetwork(database)
    const cut = await startServer({ DATABASE_URL: network.url, DATABASE_TIMEOUT_SECONDS: 1 }, { database })
    const device = await startDevice(cut, 'c2')
    const up = await series(cut)
    expect(up.get('database_up')).toBe(1)
    expect(up.get('feed_lag_seconds')).toBeGreaterThanOrEqual(0)
    network.freeze()
    const answered = Array.from({ length: 20 }, (_, number) =>
      device.publish(`${ROOT}/clients/c2/events/scan`, { id: `e${number}` }),
    )
    await until(
      async () =>
        ((await series(cut)).get('batch_retries_total{batcher="client_event",reason="database_down"}') ?? 0) > 0,
      'a retry',
    )
    const down = await series(cut)
    expect(down.get('database_up')).toBe(0)
    expect(down.has('feed_lag_seconds')).toBe(false)
    expect(down.has('alerts_open{kind="feed_lag"}')).toBe(false)
    expect(down.get('mqtt_held_messages')).toBeGreaterThan(16)
    expect(down.get('mqtt_paused_connections')).toBe(1)
    network.thaw()
    await Promise.all(answered)
    const again = await until(async () => {
      const found = await series(cut)
      return found.get('database_up') === 1 ? found : undefined
    }, 'up again')
    expect(again.get('mqtt_held_messages')).toBe(0)
    expect(again.get('mqtt_paused_connections')).toBe(0)
    device.drop()
    await cut.stop()
    await network.stop()
  })
})

test('open alerts are counted by kind, until they are resolved', async () => {
  const scene = await startServer({}, { ownPostgres: true })
  const open = async () =>
    Object.fromEntries(
      [...(await series(scene))]
        .filter(([name]) => name.startsWith('alerts_open{'))
        .map(([name, value]) => [/kind="(\w+)"/.exec(name)?.[1], value]),
    )
  const none = Object.fromEntries(AlertKind.options.map((kind) => [kind, 0]))
  expect(await open()).toEqual(none)
  const device = await startDevice(scene, 'c1')
  const commands: string[] = []
  for (const status of ['failed', 'outcome_unknown', 'outcome_unknown']) {
    const { body } = await scene.api.post('/commands', { clientId: 'c1', action: 'print' })
    device.ack((await device.nextCommand()).messageId)
    await device.report(body.id, { status, attempt: 1 })
    commands.push(body.id)
  }
  await untilOpen(scene, 'command_failed', 'c1')
  const doubts = await Promise.all(commands.slice(1).map((id) => untilOpen(scene, 'outcome_unknown', id)))
  expect(await open()).toEqual({ ...none, command_failed: 1, outcome_unknown: 2 })
  // Acknowledging ends a failure, not a doubt.
  for (const { id } of await alertsOf(scene)) await scene.api.post(`/alerts/${id}/acknowledge`)
  expect(await open()).toEqual({ ...none, outcome_unknown: 2 })
  const word = { outcome: 'completed', note: 'looked there' }
  await scene.api.post(`/commands/${commands[1]}/executions/c1/resolve`, word)
  await untilResolved(scene, doubts[0] as Alert)
  expect(await open()).toEqual({ ...none, outcome_unknown: 1 })
  device.drop()
  await scene.stop()
})

test('the parser of this test finds what is wrong', () => {
  const good = '# HELP a_total A.\n# TYPE a_total counter\na_total{x="1"} 1\n'
  expect(parseExposition(good).get('a_total')?.samples).toEqual([{ name: 'a_total', labels: { x: '1' }, value: 1 }])
  const histogram = '# HELP h H.\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 3\nh_sum 4\nh_count 3\n'
  expect(parseExposition(histogram).get('h')?.samples).toHaveLength(4)
  for (const wrong of [
    good.trimEnd(),
    'a_total 1\n',
    good.replace('# HELP a_total A.\n', ''),
    good.replace('"1"', '1'),
    good.replace('} 1', '} one'),
    good.replace('} 1', '} -1'),
    good.replace('x="1"', 'x="1",x="2"'),
    good.replace('x="1"', 'x="1",'),
    good.replace('x="1"', 'x="a"b"'),
    good.replace('a_total{', 'b_total{'),
    good.replace('counter', 'tally'),
    `${good}a_total{x="1"} 2\n`,
    good + good,
    histogram.replace('h_count 3', 'h_count 4'),
    histogram.replace('h_bucket{le="+Inf"} 3\n', ''),
    histogram.replace('le="1"} 2', 'le="1"} 5'),
    histogram.replace('h_sum 4\n', ''),
  ]) {
    expect(() => parseExposition(wrong), wrong).toThrow()
  }
})
