import { randomUUID } from 'node:crypto'
import type { IPublishPacket, Packet } from 'mqtt-packet'
import { describe, expect, type TestContext, test } from 'vitest'
import { until } from '../support/until.ts'
import { createDeviceProcess, type Example, RUNNABLE } from './device-process.ts'
import { type ScriptedBroker, startScriptedBroker } from './scripted-broker.ts'

const command = (id: string, more: object = {}) => ({
  type: 'command',
  id,
  attempt: 1,
  action: 'pick',
  payload: { id },
  priority: 5,
  target: { kind: 'client', clientId: 'd1' },
  createdAt: '2026-03-01T08:00:00.000Z',
  sentAt: '2026-03-01T08:00:00.000Z',
  expiresInSeconds: 600,
  timeoutSeconds: 60,
  ...more,
})

async function startPair(example: Example, { onTestFinished }: TestContext) {
  const broker = await startScriptedBroker()
  const device = createDeviceProcess(example, { http: '', mqttPort: broker.port }, 'd1', 'sbk_key')
  onTestFinished(async () => {
    await device.remove()
    await broker.stop()
  })
  device.start()
  const topic = 'signalbox/v1/clients/d1/commands'
  await broker.subscribed(topic)
  return {
    broker,
    device,
    tell: (message: unknown) => broker.publish(topic, message),
    async outcome(id: string, count = 1) {
      const seen = () => broker.outcomes(id)
      await until(() => seen().length >= count, `${count} reports of ${id}`).catch((error) => {
        throw new Error(`${error.message}
${device.output()}`)
      })
      return seen()
    },
    /** Sends it again until it is told again: not while a report of it is still under way. */
    async toldAgain(message: { id: string }) {
      const before = broker.outcomes(message.id).length
      await until(async () => {
        broker.publish(topic, message)
        await until(() => broker.outcomes(message.id).length > before, 'again', 500).catch(() => undefined)
        return broker.outcomes(message.id).length > before
      }, `${message.id} told again`)
      return broker.outcomes(message.id).at(-1)
    },
  }
}

const isStatus = (packet: Packet): packet is IPublishPacket =>
  packet.cmd === 'publish' && packet.topic === 'signalbox/v1/clients/d1/status'
const journalOf = (broker: ScriptedBroker): string => {
  const status = broker.packets.findLast(isStatus)
  return JSON.parse(status?.payload.toString() as string).journalId
}

const overMqtt = RUNNABLE.filter(({ transport }) => transport === 'mqtt')

describe.for(overMqtt)('the example $name against a broker that loses things', (example) => {
  const run = test.skipIf(!example.available).concurrent

  run(
    'sent twice: done once, reported again; of two attempts the completed one answers for the other',
    async (context) => {
      const { device, tell, outcome, toldAgain } = await startPair(example, context)
      const id = randomUUID()
      tell(command(id))
      expect(await outcome(id)).toEqual([expect.objectContaining({ status: 'completed', attempt: 1 })])
      expect(await toldAgain(command(id))).toMatchObject({ status: 'completed', attempt: 1 })
      expect(await toldAgain(command(id, { attempt: 2 }))).toMatchObject({
        status: 'completed',
        attempt: 2,
        result: { picked: 1 },
      })
      expect(device.picked()).toEqual([{ id }])
    },
  )

  run('a cancel of what it never had, and what has expired', async (context) => {
    const { broker, device, tell, outcome, toldAgain } = await startPair(example, context)
    const [own, foreign, late] = [randomUUID(), randomUUID(), randomUUID()]
    if (example.journal) {
      tell({ type: 'cancel', id: own, attempt: 1, journalId: journalOf(broker) })
      expect((await outcome(own))[0]).toMatchObject({ status: 'cancelled', attempt: 1 })
      expect(await toldAgain(command(own))).toMatchObject({ status: 'cancelled', attempt: 1 })
    }
    tell({ type: 'cancel', id: foreign, attempt: 1, journalId: 'another' })
    expect((await outcome(foreign))[0]).toMatchObject({ status: 'outcome_unknown', attempt: 1 })
    tell(command(late, { expiresInSeconds: 0 }))
    expect((await outcome(late))[0]).toMatchObject({ status: 'expired', attempt: 1 })
    expect(device.picked()).toEqual([])
  })
})

describe.for(overMqtt.filter(({ journal }) => journal))('the example $name, which keeps a journal', (example) => {
  const run = test.skipIf(!example.available).concurrent

  run('a report without PUBACK comes again, over a lost connection and over a crash', async (context) => {
    const { broker, device, tell, outcome } = await startPair(example, context)
    const id = randomUUID()
    broker.acknowledgeReports = false
    tell(command(id))
    await outcome(id)
    broker.drop()
    await outcome(id, 2)
    await device.kill()
    const before = broker.outcomes(id).length
    broker.acknowledgeReports = true
    device.start()
    await outcome(id, before + 1)
    expect(device.picked()).toEqual([{ id }])
  })

  run('the status with the journal is published before anything is subscribed', async (context) => {
    const { broker, device } = await startPair(example, context)
    const first = journalOf(broker)
    expect(broker.packets.findIndex(isStatus)).toBeLessThan(broker.packets.findIndex(({ cmd }) => cmd === 'subscribe'))
    await device.kill()
    const before = broker.packets.filter(isStatus).length
    device.start()
    await until(() => broker.packets.filter(isStatus).length > before, 'the status after a restart')
    expect(journalOf(broker)).toBe(first)
  })
})
