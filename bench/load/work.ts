import type * as mqtt from 'mqtt-packet'
import type { CommandMessage } from '../../schemas/messages.ts'
import { buildTopic } from '../../schemas/topics.ts'
import { type Device, ROOT } from './fleet.ts'

/** What every command of the harness carries: which one of its load it is. */
export interface Label {
  n: number
}

/** What a device knows of an attempt that it was given. */
export interface Attempt {
  topic: string
  attempt: number
  label: Label
  /** What it reports next, or that it has nothing left to report. */
  next: 'running' | 'completed' | 'nothing'
}

const LABEL = 'a line of text as a label has it'
/** Far more than a device may have at once, so that a redelivery is recognised. */
const REMEMBERED = 64

export const commandFor = (clientId: string, n: number): string =>
  JSON.stringify({ clientId, action: 'bench.run', payload: { n, label: LABEL } })

/** The message that a broker alone would carry for the same command: as large as ours. */
export const messageFor = (n: number): string =>
  JSON.stringify({
    type: 'command',
    id: '0198f3a2-7c1e-7000-8000-000000000000',
    attempt: 1,
    action: 'bench.run',
    payload: { n, label: LABEL },
    priority: 5,
    target: { kind: 'client', clientId: 'device-00001' },
    createdAt: '2026-01-01T00:00:00.000Z',
    sentAt: '2026-01-01T00:00:00.000Z',
    expiresInSeconds: 604_800,
    timeoutSeconds: 3600,
  } satisfies CommandMessage)

/** `label` was reported `completed` by `device`, and that is committed. */
export type Done = (label: Label, device: Device) => void

/**
 * A device that does its work in no time: PUBACK and `running`, and `completed` at the PUBACK of that, since an agent has at most one
 * report of an attempt under way.
 */
export function work(device: Device, packet: mqtt.IPublishPacket, done: Done): void {
  const { id, attempt, payload }: CommandMessage = JSON.parse(packet.payload.toString())
  device.connection.puback(packet.messageId as number)
  const key = `${id} ${attempt}`
  const known = device.attempts.get(key)
  if (known) {
    // What is not reported yet is under way, or is said again by `resume`.
    if (known.next === 'nothing') report(device, { ...known, next: 'completed' }, () => undefined)
    return
  }
  const topic = buildTopic(ROOT, 'commandStatus', { clientId: device.account.id, commandId: id })
  // A device of the harness gets no commands but those of `commandFor` and of the broadcasts.
  const label = payload as unknown as Label
  const begun: Attempt = { topic, attempt, label, next: 'running' }
  device.attempts.set(key, begun)
  if (device.attempts.size > REMEMBERED) forgetOldest(device)
  report(device, begun, done)
}

/** What has no PUBACK: to be asked before a reconnect, since what comes right behind the SUBACK is said once already. */
export const unsaid = ({ attempts }: Device): Attempt[] =>
  [...attempts.values()].filter(({ next }) => next !== 'nothing')

/** After the reconnect it is said again. */
export function resume(device: Device, attempts: Attempt[], done: Done): void {
  for (const attempt of attempts) report(device, attempt, done)
}

function report(device: Device, attempt: Attempt, done: Done): void {
  const { topic, next } = attempt
  const result = next === 'completed' ? { result: { ok: true } } : {}
  device.connection.publish(topic, JSON.stringify({ status: next, attempt: attempt.attempt, ...result }), () => {
    if (next === 'running') {
      attempt.next = 'completed'
      report(device, attempt, done)
    } else {
      attempt.next = 'nothing'
      done(attempt.label, device)
    }
  })
}

function forgetOldest({ attempts }: Device): void {
  for (const [key, { next }] of attempts) {
    if (next === 'nothing') return void attempts.delete(key)
  }
}
