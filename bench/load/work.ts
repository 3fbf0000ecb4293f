import type * as mqtt from 'mqtt-packet'
import type { CommandMessage } from '../../schemas/messages.ts'
import { buildTopic } from '../../schemas/topics.ts'
import { type Device, ROOT } from './fleet.ts'

/** What every command of the harness carries: which one of its load it is. */
export interface Label {
  n: number
}

export const commandFor = (clientId: string, n: number): string =>
  JSON.stringify({ clientId, action: 'bench.run', payload: { n, label: 'a line of text as a label has it' } })

/** The message that a broker alone would carry for the same command: as large as ours. */
export const messageFor = (n: number): string =>
  JSON.stringify({
    type: 'command',
    id: '0198f3a2-7c1e-7000-8000-000000000000',
    attempt: 1,
    action: 'bench.run',
    payload: { n, label: 'a line of text as a label has it' },
    priority: 5,
    target: { kind: 'client', clientId: 'device-00001' },
    createdAt: '2026-01-01T00:00:00.000Z',
    sentAt: '2026-01-01T00:00:00.000Z',
    expiresInSeconds: 604_800,
    timeoutSeconds: 3600,
  } satisfies CommandMessage)

/**
 * A device that does its work in no time: PUBACK and `running`, and `completed` at the PUBACK of that, since an agent has at most
 * one report of an attempt under way. `done` is called at the PUBACK of `completed`: it is committed.
 */
export function work(device: Device, packet: mqtt.IPublishPacket, done: (label: Label) => void): void {
  const command: CommandMessage = JSON.parse(packet.payload.toString())
  const topic = buildTopic(ROOT, 'commandStatus', { clientId: device.account.id, commandId: command.id })
  const report = (status: string, more: object, acknowledged: () => void): void =>
    device.connection.publish(topic, JSON.stringify({ status, attempt: command.attempt, ...more }), acknowledged)
  device.connection.puback(packet.messageId as number)
  report('running', {}, () => report('completed', { result: { ok: true } }, () => done(command.payload as never)))
}
