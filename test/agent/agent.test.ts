import { expect, test } from 'vitest'
import { buildTopic } from '../../schemas/topics.ts'
import { ROOT } from './support/broker.ts'
import { cancelOf, command, idOf, until } from './support/fixtures.ts'
import { scene } from './support/scene.ts'

test('publishes its status with the journalId, and has the PUBACK, before it subscribes', async () => {
  await using s = await scene({ version: '1.2.3', status: () => ({ printers: ['a'] }) })
  expect(s.broker.log.slice(0, 3)).toEqual([
    'connect',
    `status ${s.agent.journalId}`,
    'subscribe signalbox/v1/clients/p1/commands',
  ])
  expect(s.broker.statuses[0]).toEqual({
    state: 'online',
    version: '1.2.3',
    journalId: s.agent.journalId,
    printers: ['a'],
  })
  expect(s.broker.subscriptions('p1').sort()).toEqual([
    'signalbox/v1/broadcast/commands',
    'signalbox/v1/clients/p1/commands',
    'signalbox/v1/clients/p1/config',
    'signalbox/v1/clients/p1/replies',
  ])
})

test('does not subscribe while the PUBACK of its status is missing', async () => {
  await using s = await scene()
  s.broker.holdStatus = true
  s.broker.log.length = 0
  s.broker.cut()
  await until(() => expect(s.broker.log).toEqual(['connect', `status ${s.agent.journalId}`]))
  await new Promise((resolve) => setTimeout(resolve, 20))
  expect(s.broker.log).toHaveLength(2)
  s.broker.holdStatus = false
  await until(() => expect(s.broker.log).toHaveLength(6))
})

test('runs a command and reports running, progress and the result', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  const run = await s.run(1)
  await s.reported(1, 'running')
  run.progress({ done: 1, total: 2, message: 'half' })
  await until(() => expect(s.reports(1).at(-1)?.progress).toEqual({ done: 1, total: 2, message: 'half' }))
  run.complete({ ok: true })
  const report = await s.reported(1, 'completed')
  expect(report).toMatchObject({ attempt: 1, result: { ok: true }, progress: { done: 1, total: 2 } })
  expect(s.reports(1).map(({ status }) => status)).toEqual(['running', 'running', 'completed'])
})

test('subscribes to the zones of its config, and drops those it loses', async () => {
  await using s = await scene()
  const zone = (name: string): string => buildTopic(ROOT, 'zoneCommands', { zone: name })
  const config = buildTopic(ROOT, 'clientConfig', { clientId: 'p1' })
  s.broker.refusedTopics.add(zone('C'))
  await s.broker.send(config, { zones: ['A', 'B', 'C'], maxInFlight: 8 }, { retain: true })
  await until(() => expect(s.broker.subscriptions('p1')).toEqual(expect.arrayContaining([zone('A'), zone('B')])))
  await until(() => expect(s.log.lines).toContainEqual(expect.objectContaining({ fields: { topic: zone('C') } })))
  await s.broker.send(config, { zones: ['B'], maxInFlight: 8 }, { retain: true })
  await until(() => expect(s.broker.subscriptions('p1')).not.toContain(zone('A')))
  s.broker.cut()
  await until(() => expect(s.broker.connections()).toBe(2))
  await until(() => expect(s.broker.subscriptions('p1')).toContain(zone('B')))
  await s.broker.send(zone('B'), command(1, { target: { kind: 'zone', zone: 'B' } }))
  await s.run(1)
})

test('a redelivery runs once, and a known outcome is reported again', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  await s.broker.toClient('p1', command(1))
  const run = await s.run(1)
  await until(() => expect(s.broker.acks).toBe(2))
  run.complete()
  await s.reported(1, 'completed')
  await s.broker.toClient('p1', command(1))
  await until(() => expect(s.reports(1).filter(({ status }) => status === 'completed')).toHaveLength(2))
  expect(s.runs).toHaveLength(1)
})

test('a cancel before the start withdraws the command', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1))
  const first = await s.run(1)
  await s.broker.toClient('p1', command(2))
  await s.broker.toClient('p1', cancelOf(2))
  await s.reported(2, 'cancelled')
  first.complete()
  await s.reported(1, 'completed')
  expect(s.runs.map(({ n }) => n)).toEqual([1])
})

test('a cancel during the run aborts the signal, and the handler decides', async () => {
  await using s = await scene({ concurrency: 3 })
  for (const n of [1, 2, 3]) await s.broker.toClient('p1', command(n))
  const [stops, finishes, breaks] = [await s.run(1), await s.run(2), await s.run(3)]
  for (const n of [1, 2, 3]) await s.broker.toClient('p1', cancelOf(n, { reason: 'wrong paper' }))
  await until(() => expect([stops, finishes, breaks].every((run) => run.signal.aborted)).toBe(true))
  stops.fail(stops.signal.reason)
  finishes.complete('done anyway')
  breaks.fail(Object.assign(new Error('jam'), { code: 'JAM' }))
  expect(await s.reported(1, 'cancelled')).toMatchObject({ error: { code: 'CANCELLED', message: 'wrong paper' } })
  expect(await s.reported(2, 'completed')).toMatchObject({ result: 'done anyway' })
  expect(await s.reported(3, 'failed')).toMatchObject({ error: { code: 'JAM', message: 'jam' } })
})

test('a cancel of an unknown command: cancelled and never run under its own journalId, otherwise unknown', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', cancelOf(1, { journalId: s.agent.journalId }))
  await s.reported(1, 'cancelled')
  await s.broker.toClient('p1', cancelOf(2, { journalId: 'another' }))
  await s.reported(2, 'outcome_unknown')
  await s.broker.toClient('p1', cancelOf(3))
  await s.reported(3, 'outcome_unknown')
  for (const n of [1, 2, 3, 4]) await s.broker.toClient('p1', command(n))
  await s.run(4)
  expect(s.runs.map(({ n }) => n)).toEqual([4])
  await until(() => expect(s.reports(1)).toHaveLength(2))
})

test('an unknown action is rejected', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', command(1, { action: 'toString' }))
  expect(await s.reported(1, 'rejected')).toMatchObject({ error: { code: 'UNKNOWN_ACTION' } })
})

test('a malformed message is logged and acknowledged, and the next is taken', async () => {
  await using s = await scene()
  await s.broker.toClient('p1', '{ not JSON')
  await s.broker.toClient('p1', { type: 'command', id: idOf(1) })
  await s.broker.toClient('p1', command(2))
  await s.run(2)
  await until(() => expect(s.broker.acks).toBe(3))
  expect(s.log.lines.filter(({ level }) => level === 'warn')).toHaveLength(2)
})
