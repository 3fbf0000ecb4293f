import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import {
  command,
  commandsOf,
  enter,
  explain,
  register,
  statusOf,
  technician,
  untilStatus,
  type WatchedBroker,
  watchBroker,
} from './support/scene.ts'

let server: TestServer
let broker: () => WatchedBroker

beforeAll(async () => {
  broker = watchBroker()
  server = await startServer()
  await server.api.send('PUT', '/actions/repeatable', { delivery: 'at_least_once' })
})
afterAll(() => server.stop())

async function cancel(id: string, body: Record<string, unknown> = {}) {
  const { status, body: outcome } = await server.api.post(`/commands/${id}/cancel`, body)
  expect(status).toBe(200)
  return outcome
}

const untilOffline = (clientId: string) =>
  until(async () => (await server.api.get(`/clients/${clientId}`)).body.presence === 'offline', `${clientId} offline`)

/** A device with a command that it has acknowledged. */
async function delivered(clientId: string, journalId?: string) {
  const key = await register(server, clientId)
  const device = await enter(server, clientId, key, journalId === undefined ? {} : { journalId })
  const id = await command(server, clientId)
  device.ack((await device.nextCommand()).messageId)
  await untilStatus(server, id, 'delivered')
  return { key, device, id }
}

test('what was never handed over is cancelled at once and never sent', async () => {
  const key = await register(server, 'pending')
  const id = await command(server, 'pending')
  expect(await cancel(id, { reason: 'not needed' })).toEqual({ cancelled: 1, requested: 0, tooLate: 0 })
  expect(await statusOf(server, id)).toBe('cancelled')
  const device = await enter(server, 'pending', key)
  const marker = await command(server, 'pending')
  expect((await device.nextCommand()).payload.id).toBe(marker)
  await device.end()
})

test('what was handed over is asked back with its attempt and journal, and the report decides: cancelled', async () => {
  const { device, id } = await delivered('asked', 'j1')
  expect(await cancel(id, { reason: 'wrong box' })).toEqual({ cancelled: 0, requested: 1, tooLate: 0 })
  const { messageId, payload } = await device.nextCommand()
  expect(payload).toEqual({ type: 'cancel', id, attempt: 1, journalId: 'j1', reason: 'wrong box' })
  device.ack(messageId)
  await device.ping()
  expect(await statusOf(server, id)).toBe('delivered')
  expect(await explain(server, id)).toBe('cancel_requested')
  await device.report(id, { status: 'cancelled', attempt: 1 })
  await untilStatus(server, id, 'cancelled')
  await device.end()
})

test('without a journal the cancel names none, and a client that had completed it says so', async () => {
  const { device, id } = await delivered('completes')
  expect(await cancel(id)).toMatchObject({ requested: 1 })
  expect((await device.nextCommand()).payload).toEqual({ type: 'cancel', id, attempt: 1 })
  await device.report(id, { status: 'completed', attempt: 1, result: 1 })
  await untilStatus(server, id, 'completed')
  await device.end()
})

test('a second cancel sends it again and says requested again', async () => {
  const { device, id } = await delivered('twice')
  await cancel(id)
  expect(await cancel(id)).toEqual({ cancelled: 0, requested: 1, tooLate: 0 })
  for (const _ of [1, 2]) expect((await device.nextCommand()).payload).toMatchObject({ type: 'cancel', id })
  await device.end()
})

test('it is the first thing a client hears when it comes back, at every reconnect until it reports', async () => {
  const { key, device, id } = await delivered('repeats', 'j1')
  device.drop()
  await untilOffline('repeats')
  expect(await cancel(id)).toMatchObject({ requested: 1 })
  const waiting = await command(server, 'repeats', { priority: 10 })
  for (let round = 0; round < 2; round++) {
    const again = await enter(server, 'repeats', key, { journalId: 'j1' })
    const cancelled = await again.nextCommand()
    expect(cancelled.payload).toMatchObject({ type: 'cancel', id, attempt: 1, journalId: 'j1' })
    again.ack(cancelled.messageId)
    expect((await again.nextCommand()).payload).toMatchObject({ type: 'command', id: waiting })
    again.drop()
    await untilOffline('repeats')
  }
  const last = await enter(server, 'repeats', key, { journalId: 'j1' })
  await last.report(id, { status: 'cancelled', attempt: 1 })
  await untilStatus(server, id, 'cancelled')
  await last.end()
})

test('work that was never acknowledged is asked back, once per session, instead of being sent again', async () => {
  const key = await register(server, 'unacked')
  const device = await enter(server, 'unacked', key)
  const id = await command(server, 'unacked', { action: 'repeatable' })
  await device.nextCommand()
  device.drop()
  await untilOffline('unacked')
  expect(await cancel(id)).toMatchObject({ requested: 1 })
  const again = await enter(server, 'unacked', key)
  // It is sent by the sweep at that time, many sweeps from now.
  const marker = await command(server, 'unacked', { notBefore: new Date(Date.now() + 500).toISOString() })
  expect((await again.nextCommand()).payload).toMatchObject({ type: 'cancel', id, attempt: 1 })
  expect((await again.nextCommand()).payload).toMatchObject({ type: 'command', id: marker })
  expect(again.received(commandsOf('unacked'))).toHaveLength(2)
  await again.report(id, { status: 'cancelled', attempt: 1 })
  await untilStatus(server, id, 'cancelled')
  await again.end()
})

test('after a cancel request a failure is not tried again', async () => {
  const device = await enter(server, 'no-retry', await register(server, 'no-retry'))
  const id = await command(server, 'no-retry', { action: 'repeatable' })
  device.ack((await device.nextCommand()).messageId)
  await cancel(id)
  await device.report(id, { status: 'failed', attempt: 1, error: { code: 'STOPPED', message: 'stopped' } })
  expect(await untilStatus(server, id, 'failed')).toMatchObject({ attempt: 1 })
  await device.end()
})

test('what is settled is too late to cancel', async () => {
  const { device, id } = await delivered('too-late')
  await device.report(id, { status: 'completed', attempt: 1 })
  expect(await cancel(id)).toEqual({ cancelled: 0, requested: 0, tooLate: 1 })
  expect(await statusOf(server, id)).toBe('completed')
  const marker = await command(server, 'too-late')
  expect((await device.nextCommand()).payload).toMatchObject({ type: 'command', id: marker })
  await device.end()
})

test('a cancel that is decided together with the claim is not lost: the client gets it after the command, or neither', async () => {
  // Their ids end in even digits, so they share a lane: while it waits for the one, claim and cancel of the other meet in it.
  const held = await enter(server, 'fold-2', await register(server, 'fold-2'))
  const device = await enter(server, 'fold-4', await register(server, 'fold-4'))
  const blocker = new pg.Client({ connectionString: server.database_.url })
  await blocker.connect()
  await blocker.query("begin; select 1 from clients where id = 'fold-2' for no key update")
  await command(server, 'fold-2')
  const id = await command(server, 'fold-4')
  const outcome = cancel(id, { reason: 'at once' })
  // The cancel has only two reads before it: by the time of these it waits in the lane.
  for (let round = 0; round < 20; round++) expect(await statusOf(server, id)).toBe('pending')
  await blocker.query('commit')
  await blocker.end()
  expect(await outcome).toEqual({ cancelled: 0, requested: 1, tooLate: 0 })
  const marker = await command(server, 'fold-4')
  await until(() => device.received().some(({ payload }) => payload.id === marker), 'the marker')
  const told = device.received().filter(({ payload }) => payload.id === id)
  if (told.length > 0) {
    expect(told.map(({ payload }) => payload.type)).toEqual(['command', 'cancel'])
    expect(told[1]?.payload).toMatchObject({ reason: 'at once' })
    await device.report(id, { status: 'cancelled', attempt: 1 })
  }
  await untilStatus(server, id, 'cancelled')
  held.drop()
  device.drop()
})

test('a cancel that comes while the command is being written is told once it is', async () => {
  const device = await enter(server, 'writing', await register(server, 'writing'))
  // For whoever looks on the command is published, and the answer to that can be held back.
  const onlooker = await technician(server, 'onlooker')
  const { promise: told, resolve: tell } = Promise.withResolvers<void>()
  const restore = broker().delayAnswer(commandsOf('writing'), told)
  const id = await command(server, 'writing')
  const { messageId } = await device.nextCommand()
  restore()
  // The device has it, and the server does not know yet that it was written.
  expect(await cancel(id)).toMatchObject({ requested: 1 })
  await device.ping()
  expect(device.received(commandsOf('writing'))).toHaveLength(1)
  tell()
  expect((await device.nextCommand()).payload).toMatchObject({ type: 'cancel', id, attempt: 1 })
  device.ack(messageId)
  await device.report(id, { status: 'cancelled', attempt: 1 })
  await untilStatus(server, id, 'cancelled')
  await Promise.all([device.end(), onlooker.end()])
})

test('an outcome that becomes unknown while the journal of the hand-over is connected is asked about at once', async () => {
  const device = await enter(server, 'late', await register(server, 'late'), { journalId: 'j1' })
  const id = await command(server, 'late', { startTimeoutSeconds: 1 })
  device.ack((await device.nextCommand()).messageId)
  expect((await device.nextCommand()).payload).toEqual({ type: 'cancel', id, attempt: 1, journalId: 'j1' })
  expect(await statusOf(server, id)).toBe('outcome_unknown')
  await device.report(id, { status: 'cancelled', attempt: 1 })
  await untilStatus(server, id, 'cancelled')
  await device.end()
})

test('a client without a journal is not asked about an unknown outcome: it could not tell', async () => {
  const device = await enter(server, 'forgetful', await register(server, 'forgetful'))
  const id = await command(server, 'forgetful', { startTimeoutSeconds: 1 })
  device.ack((await device.nextCommand()).messageId)
  await untilStatus(server, id, 'outcome_unknown')
  const marker = await command(server, 'forgetful')
  expect((await device.nextCommand()).payload).toMatchObject({ type: 'command', id: marker })
  await device.end()
})
