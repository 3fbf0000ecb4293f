import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { IPubackPacket, Packet } from 'mqtt-packet'
import { connectDevice, ROOT } from '../support/device.ts'
import { until } from '../support/until.ts'
import type { AcknowledgedReport, PlainDevice } from './plain-device.ts'
import { openEffects, type Work } from './work.ts'

/** A device that never waits for a PUBACK: what it says is on its way at once, and each answer is looked at. */
export interface PipeliningDevice extends PlainDevice {
  clientId: string
  /** Sends so many messages, events and reports in turn. */
  say(count: number): void
  /** Sent and not acknowledged. */
  unanswered(): number
  /** performance.now() of each PUBACK. */
  pubacks: number[]
  /** Resolves with the PINGRESP. */
  ping(limitMs: number): Promise<void>
  /** Numbers of the events whose PUBACK came, and of the progress reports. */
  confirmed: { event: number[]; progress: number[] }
  /** The command that its progress is about. */
  commandId: string
  /** What must not be: a PUBACK out of order, a connection that was lost. */
  faults: string[]
  /** Says that its own command is completed, and waits until all is acknowledged. */
  finish(): Promise<void>
}

type Said = { kind: 'event' | 'progress'; number: number } | ({ kind: 'outcome' } & AcknowledgedReport)

const FIRST_ID = 100
const LAST_ID = 60_000
const LOOK_MS = 2

/** `command` creates what it will report about: a command for this client. */
export async function startPipeliningDevice(orders: {
  mqttPort: number
  clientId: string
  clientKey: string
  directory: string
  command(): Promise<string>
}): Promise<PipeliningDevice> {
  const { clientId, clientKey: password, mqttPort } = orders
  const device = await connectDevice({ mqttPort }, { clientId, password })
  await device.subscribe([`${ROOT}/clients/${clientId}/commands`, `${ROOT}/broadcast/commands`])
  const effects = openEffects(join(orders.directory, `effects-${clientId}.jsonl`))
  const onItsWay: { messageId: number; said: Said }[] = []
  let nextId = FIRST_ID
  let number = 0
  let pongs = 0
  let ending = false

  const self: PipeliningDevice = {
    clientId,
    acknowledged: [],
    pubacks: [],
    confirmed: { event: [], progress: [] },
    faults: [],
    commandId: await orders.command(),
    unanswered: () => onItsWay.length,
    say(count) {
      for (let index = 0; index < count; index++) {
        const kind = number++ % 2 === 0 ? 'event' : 'progress'
        if (kind === 'event') {
          // No order can be read off the id itself.
          const id = `${(number * 7919) % 10_007}-${number}`
          publish('events/tick', { id, seq: number }, { kind, number })
        } else {
          const progress = { done: number }
          publish(`commands/${self.commandId}/status`, { status: 'running', attempt: 1, progress }, { kind, number })
        }
      }
    },
    async ping(limitMs) {
      const before = pongs
      device.send({ cmd: 'pingreq' })
      await until(() => pongs > before, `a PINGRESP for ${clientId}`, limitMs)
    },
    async finish() {
      tell(self.commandId, 1, 'completed')
      await until(() => onItsWay.length === 0, `the PUBACKs of ${clientId}`, 60_000)
    },
    async [Symbol.asyncDispose]() {
      ending = true
      device.drop()
      await looking
      effects.close()
    },
  }

  function publish(topic: string, payload: Record<string, unknown>, said: Said): void {
    const messageId = nextId
    nextId = nextId === LAST_ID ? FIRST_ID : nextId + 1
    onItsWay.push({ messageId, said })
    device.send({
      cmd: 'publish',
      topic: `${ROOT}/clients/${clientId}/${topic}`,
      payload: JSON.stringify(payload),
      qos: 1,
      retain: false,
      dup: false,
      messageId,
    })
  }

  function tell(id: string, attempt: number, status: string): void {
    const report = { kind: 'outcome', clientId, id, attempt, status } as const
    publish(`commands/${id}/status`, { status, attempt }, report)
  }

  const taken = new Set<string>()
  function take(messageId: number, message: { type: string; id: string; attempt: number; payload?: Work }): void {
    const { type, id, attempt } = message
    device.send({ cmd: 'puback', messageId })
    const key = `${id} ${attempt}`
    if (type !== 'command' || taken.has(key)) return
    taken.add(key)
    effects.append({ clientId, id, attempt })
    // Its own command stays running; a broadcast is done at once.
    if (id !== self.commandId) tell(id, attempt, 'completed')
  }

  function heard(packet: Packet): void {
    if (packet.cmd === 'pingresp') pongs++
    if (packet.cmd === 'puback') acknowledged(packet)
    if (packet.cmd === 'publish' && packet.topic.endsWith('/commands'))
      take(packet.messageId as number, JSON.parse(packet.payload.toString()))
  }

  function acknowledged({ messageId }: IPubackPacket): void {
    if ((messageId as number) < FIRST_ID) return
    self.pubacks.push(performance.now())
    const oldest = onItsWay.shift()
    if (oldest?.messageId !== messageId) {
      self.faults.push(`PUBACK ${messageId} came before that of ${oldest?.messageId}`)
    } else if (oldest?.said.kind === 'outcome') {
      self.acknowledged.push(oldest.said)
    } else if (oldest) {
      self.confirmed[oldest.said.kind].push(oldest.said.number)
    }
  }

  async function look(): Promise<void> {
    for (let seen = 0; !ending; await sleep(LOOK_MS)) {
      for (; seen < device.packets.length; seen++) heard(device.packets[seen] as Packet)
      if (!device.closed) continue
      self.faults.push(`${clientId} lost its connection with ${onItsWay.length} messages unanswered`)
      return
    }
  }
  const looking = look()
  await until(() => taken.has(`${self.commandId} 1`), `the command of ${clientId}`)
  return self
}
