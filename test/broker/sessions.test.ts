import { generate } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connectDevice } from '../support/device.ts'
import { startServer, type TestServer } from '../support/server.ts'
import { until } from '../support/until.ts'
import {
  command,
  commandsOf,
  enter,
  own,
  register,
  statusOf,
  timelineOf,
  untilExplained,
  untilStatus,
} from './support/scene.ts'

let server: TestServer

beforeAll(async () => {
  server = await startServer({ RETRY_BACKOFF_SECONDS: 0.01 })
  const { status } = await server.api.send('PUT', '/actions/repeatable', { delivery: 'at_least_once', maxRetries: 1 })
  expect(status).toBe(200)
})
afterAll(() => server.stop())

const untilOffline = (clientId: string) =>
  until(async () => (await server.api.get(`/clients/${clientId}`)).body.presence === 'offline', `${clientId} offline`)

/** The ids of everything on the own commands topic, once `id` has come: what comes first was sent first. */
async function receivedUpTo(device: Awaited<ReturnType<typeof enter>>, id: string) {
  const ids = () => device.received(commandsOf(device.clientId)).map(({ payload }) => payload.id)
  await until(() => ids().includes(id), `command ${id}`)
  return ids()
}

describe('a command that was sent and not acknowledged when the connection dropped', () => {
  test('is redelivered to the next session if its action is at_least_once: same id, same attempt', async () => {
    const key = await register(server, 'alo')
    const first = await enter(server, 'alo', key)
    const id = await command(server, 'alo', { action: 'repeatable' })
    await first.nextCommand()
    first.drop()
    await untilOffline('alo')
    expect(await statusOf(server, id)).toBe('queued')
    await untilExplained(server, id, 'waiting_for_reconnect')
    const second = await enter(server, 'alo', key)
    const { messageId, payload } = await second.nextCommand()
    expect(payload).toMatchObject({ type: 'command', id, attempt: 1 })
    second.ack(messageId)
    await untilStatus(server, id, 'delivered')
    await second.report(id, { status: 'completed', attempt: 1 })
    expect(await timelineOf(server, id)).toEqual([
      'command.created',
      'execution.queued',
      'execution.redelivered',
      'execution.delivered',
      'execution.completed',
    ])
    await second.end()
  })

  test('is outcome_unknown at the end of the session if it is at_most_once and no journal vouches for it', async () => {
    const key = await register(server, 'amo')
    const first = await enter(server, 'amo', key)
    const id = await command(server, 'amo')
    await first.nextCommand()
    first.drop()
    expect(await untilStatus(server, id, 'outcome_unknown')).toMatchObject({ error: { code: 'SESSION_LOST' } })
    await untilOffline('amo')
    const second = await enter(server, 'amo', key)
    const marker = await command(server, 'amo')
    expect(await receivedUpTo(second, marker)).toEqual([marker])
    await second.end()
  })

  test('is redelivered to a session that published the same journal before it subscribed', async () => {
    const key = await register(server, 'same')
    const first = await enter(server, 'same', key, { journalId: 'j1' })
    const id = await command(server, 'same')
    await first.nextCommand()
    first.drop()
    await untilOffline('same')
    expect(await statusOf(server, id)).toBe('queued')
    const second = await enter(server, 'same', key, { journalId: 'j1' })
    const { messageId, payload } = await second.nextCommand()
    expect(payload).toMatchObject({ type: 'command', id, attempt: 1 })
    second.ack(messageId)
    await second.report(id, { status: 'completed', attempt: 1 })
    await untilStatus(server, id, 'completed')
    await second.end()
  })

  test('is redelivered when the journal is published only after the subscription', async () => {
    const key = await register(server, 'same-late')
    const first = await enter(server, 'same-late', key, { journalId: 'j1' })
    const id = await command(server, 'same-late')
    await first.nextCommand()
    first.drop()
    await untilOffline('same-late')
    const second = await enter(server, 'same-late', key)
    expect(await statusOf(server, id)).toBe('queued')
    await second.publish(own('same-late', 'status'), { state: 'online', journalId: 'j1' })
    expect((await second.nextCommand()).payload).toMatchObject({ id, attempt: 1 })
    await second.end()
  })

  test('is outcome_unknown when the client comes back with another journal, or with a status without one', async () => {
    for (const [clientId, status] of [
      ['other-journal', { state: 'online', journalId: 'j2' }],
      ['no-journal', { state: 'online' }],
    ] as const) {
      const key = await register(server, clientId)
      const first = await enter(server, clientId, key, { journalId: 'j1' })
      const id = await command(server, clientId)
      await first.nextCommand()
      first.drop()
      await untilOffline(clientId)
      const second = await enter(server, clientId, key)
      await second.publish(own(clientId, 'status'), status)
      expect(await untilStatus(server, id, 'outcome_unknown')).toMatchObject({ error: { code: 'HANDOVER_LOST' } })
      const marker = await command(server, clientId)
      expect(await receivedUpTo(second, marker)).toEqual([marker])
      await second.end()
    }
  })

  test('goes to a quick successor, whether the older connection dropped or is taken over', async () => {
    const key = await register(server, 'quick')
    let device = await enter(server, 'quick', key)
    const id = await command(server, 'quick', { action: 'repeatable' })
    await device.nextCommand()
    for (let round = 0; round < 6; round++) {
      if (round % 2) device.drop()
      device = await enter(server, 'quick', key)
      expect((await device.nextCommand()).payload).toMatchObject({ type: 'command', id, attempt: 1 })
      expect(device.received(commandsOf('quick'))).toHaveLength(1)
    }
    await device.report(id, { status: 'completed', attempt: 1 })
    await untilStatus(server, id, 'completed')
    await device.end()
  })
})

test('a status and a SUBSCRIBE sent in one go count in their order: the hand-over knows the journal', async () => {
  const clientId = 'in-one-go'
  const key = await register(server, clientId)
  for (let round = 0; round < 10; round++) {
    const id = await command(server, clientId)
    const device = await connectDevice(server, { clientId, password: key })
    const status = { state: 'online', journalId: `j${round}` }
    device.write(
      Buffer.concat([
        generate({
          cmd: 'publish',
          topic: own(clientId, 'status'),
          payload: JSON.stringify(status),
          qos: 1,
          messageId: 100,
          retain: true,
          dup: false,
        }),
        generate({ cmd: 'subscribe', messageId: 101, subscriptions: [{ topic: commandsOf(clientId), qos: 1 }] }),
      ]),
    )
    expect((await device.nextCommand()).payload).toMatchObject({ type: 'command', id })
    const [row] = await server.sql('select handovers from executions where command_id = $1', [id])
    expect(row?.handovers).toEqual([{ attempt: 1, journalId: `j${round}` }])
    await device.report(id, { status: 'completed' })
    await device.end()
  }
})

test('acknowledged work waits for its report across reconnects and is not sent again', async () => {
  const key = await register(server, 'waits')
  const first = await enter(server, 'waits', key)
  const delivered = await command(server, 'waits')
  const running = await command(server, 'waits', { action: 'repeatable' })
  for (const _ of [1, 2]) first.ack((await first.nextCommand()).messageId)
  await untilStatus(server, delivered, 'delivered')
  await first.report(running, { status: 'running', attempt: 1 })
  first.drop()
  await untilOffline('waits')
  for (let round = 0; round < 2; round++) {
    const device = await enter(server, 'waits', key)
    const marker = await command(server, 'waits')
    expect(await receivedUpTo(device, marker)).toEqual([marker])
    await device.report(marker, { status: 'completed' })
    await device.end()
    await untilOffline('waits')
  }
  expect([await statusOf(server, delivered), await statusOf(server, running)]).toEqual(['delivered', 'running'])
  const last = await enter(server, 'waits', key)
  for (const id of [delivered, running]) {
    await last.report(id, { status: 'completed', attempt: 1 })
    await untilStatus(server, id, 'completed')
  }
  await last.end()
})

describe('when time runs out', () => {
  test('an at_most_once command is outcome_unknown, not started or not finished', async () => {
    const device = await enter(server, 'slow-amo', await register(server, 'slow-amo'))
    const neverStarted = await command(server, 'slow-amo', { startTimeoutSeconds: 1 })
    const neverFinished = await command(server, 'slow-amo', { timeoutSeconds: 1 })
    for (const _ of [1, 2]) device.ack((await device.nextCommand()).messageId)
    await device.report(neverFinished, { status: 'running', attempt: 1 })
    expect(await untilStatus(server, neverStarted, 'outcome_unknown')).toMatchObject({
      error: { code: 'START_TIMEOUT' },
    })
    expect(await untilStatus(server, neverFinished, 'outcome_unknown')).toMatchObject({ error: { code: 'TIMEOUT' } })
    await device.end()
  })

  test('an at_least_once command is sent in its next attempt, until the retries are used up: then it has failed', async () => {
    const device = await enter(server, 'slow-alo', await register(server, 'slow-alo'))
    const id = await command(server, 'slow-alo', { action: 'repeatable', startTimeoutSeconds: 1, timeoutSeconds: 1 })
    const first = await device.nextCommand()
    device.ack(first.messageId)
    const second = await device.nextCommand()
    expect(second.payload).toMatchObject({ type: 'command', id, attempt: 2 })
    device.ack(second.messageId)
    await device.report(id, { status: 'running', attempt: 2 })
    expect(await untilStatus(server, id, 'failed')).toMatchObject({ attempt: 2, error: { code: 'TIMEOUT' } })
    expect((await timelineOf(server, id)).filter((type) => type === 'execution.failed')).toHaveLength(1)
    await device.end()
  })

  test('a reported failure is tried again at once, and nobody sees `failed` in between', async () => {
    const device = await enter(server, 'fails', await register(server, 'fails'))
    const id = await command(server, 'fails', { action: 'repeatable' })
    for (const attempt of [1, 2]) {
      const { messageId, payload } = await device.nextCommand()
      expect(payload).toMatchObject({ id, attempt })
      device.ack(messageId)
      await device.report(id, { status: 'failed', attempt, error: { code: 'JAM', message: `jam ${attempt}` } })
    }
    expect(await untilStatus(server, id, 'failed')).toMatchObject({ error: { code: 'JAM', message: 'jam 2' } })
    expect(await timelineOf(server, id)).toEqual([
      'command.created',
      'execution.queued',
      'execution.delivered',
      'execution.next_attempt',
      'execution.queued',
      'execution.delivered',
      'execution.failed',
    ])
    await device.end()
  })

  test('a command whose client stays away expires, and is not sent when the client comes', async () => {
    const key = await register(server, 'away')
    const id = await command(server, 'away', { ttlSeconds: 1 })
    expect(await statusOf(server, id)).toBe('pending')
    await untilStatus(server, id, 'expired')
    const device = await enter(server, 'away', key)
    const marker = await command(server, 'away')
    expect(await receivedUpTo(device, marker)).toEqual([marker])
    await device.end()
  })
})

test('work that expired while it was unacknowledged is asked back instead of being sent again', async () => {
  const key = await register(server, 'expired')
  const first = await enter(server, 'expired', key)
  const id = await command(server, 'expired', { action: 'repeatable', ttlSeconds: 1 })
  await first.nextCommand()
  first.drop()
  await untilOffline('expired')
  await until(async () => {
    const [row] = await server.sql(
      'select expires_at < clock_timestamp() as over from executions where command_id = $1',
      [id],
    )
    return row?.over
  }, 'its expiry')
  const second = await enter(server, 'expired', key)
  expect((await second.nextCommand()).payload).toMatchObject({ type: 'cancel', id, attempt: 1 })
  expect(await statusOf(server, id)).toBe('queued')
  await second.report(id, { status: 'expired', attempt: 1 })
  await untilStatus(server, id, 'expired')
  await second.end()
})

test('a late report settles an outcome_unknown', async () => {
  const key = await register(server, 'late')
  const outcomes = [
    { status: 'completed', attempt: 1, result: 42 },
    { status: 'failed', attempt: 1, error: { code: 'JAM', message: 'jam' } },
    { status: 'cancelled', attempt: 1 },
  ]
  for (const { status, ...outcome } of outcomes) {
    const first = await enter(server, 'late', key)
    const id = await command(server, 'late')
    await first.nextCommand()
    first.drop()
    await untilStatus(server, id, 'outcome_unknown')
    await untilExplained(server, id, 'outcome_unknown')
    const second = await enter(server, 'late', key)
    await second.report(id, { status, ...outcome })
    const { attempt: _, ...kept } = outcome
    expect(await untilStatus(server, id, status)).toMatchObject(kept)
    await second.end()
  }
})

test('an outcome_unknown is asked about when its journal comes back, and only then', async () => {
  const key = await register(server, 'asked')
  const first = await enter(server, 'asked', key, { journalId: 'j1' })
  const id = await command(server, 'asked', { startTimeoutSeconds: 1 })
  first.ack((await first.nextCommand()).messageId)
  await untilStatus(server, id, 'outcome_unknown')
  await first.end()

  const other = await enter(server, 'asked', key, { journalId: 'j2' })
  const marker = await command(server, 'asked')
  expect(await receivedUpTo(other, marker)).toEqual([marker])
  await other.report(marker, { status: 'completed' })
  await other.end()

  const same = await enter(server, 'asked', key, { journalId: 'j1' })
  expect((await same.nextCommand()).payload).toEqual({ type: 'cancel', id, attempt: 1, journalId: 'j1' })
  await same.report(id, { status: 'completed', attempt: 1, result: 'done long ago' })
  expect(await untilStatus(server, id, 'completed')).toMatchObject({ result: 'done long ago' })
  await same.end()
})
