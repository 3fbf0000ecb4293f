import { once } from 'node:events'
import { createConnection } from 'node:net'
import * as mqtt from 'mqtt-packet'
import { until } from '../../support/until.ts'

type Qos = 0 | 1 | 2

interface Received {
  topic: string
  payload: string
  qos: Qos
  retain: boolean
  dup: boolean
  messageId: number | undefined
}

export interface ClientOptions {
  clientId?: string
  clean?: boolean
  keepalive?: number
  will?: { topic: string; payload: string; qos?: Qos; retain?: boolean }
  /** Acknowledges what it receives, as a client should. */
  acknowledges?: boolean
}

/** A client that speaks packet by packet, so that each can be left out or repeated. */
export interface Client {
  sessionPresent: boolean
  packets: mqtt.Packet[]
  messages: Received[]
  closed(): boolean
  send(packet: mqtt.Packet): void
  write(bytes: Buffer): void
  subscribe(...filters: [filter: string, qos: Qos][]): Promise<number[]>
  unsubscribe(...filters: string[]): Promise<void>
  /** Resolves once it is acknowledged, with PUBCOMP at QoS 2. */
  publish(topic: string, payload: string, options?: { qos?: Qos; retain?: boolean; dup?: boolean }): Promise<void>
  /** Waits for a packet that the broker sends from now on, or has sent and nobody waited for. */
  next(cmd: mqtt.Packet['cmd']): Promise<mqtt.Packet & { messageId: number }>
  /** The broker has answered everything before this, and written what it had for this client. */
  settle(): Promise<void>
  /** DISCONNECT. */
  leave(): Promise<void>
  drop(): Promise<void>
  whenClosed(): Promise<unknown>
}

let count = 0

export async function join(port: number, options: ClientOptions = {}): Promise<Client> {
  const { clientId = `client-${++count}`, clean = true, keepalive = 60, will, acknowledges = true } = options
  const socket = createConnection({ port, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  const parser = mqtt.parser({ protocolVersion: 4 })
  const packets: mqtt.Packet[] = []
  const unseen: mqtt.Packet[] = []
  const messages: Received[] = []
  let closed = false
  let nextId = 0
  const send = (packet: mqtt.Packet): void => void socket.write(mqtt.generate(packet))
  parser.on('packet', (packet: mqtt.Packet) => {
    packets.push(packet)
    unseen.push(packet)
    if (packet.cmd === 'publish') {
      const { topic, payload, qos, retain, dup, messageId } = packet
      messages.push({ topic, payload: payload.toString(), qos, retain, dup, messageId })
      if (acknowledges && qos === 1) send({ cmd: 'puback', messageId })
      if (acknowledges && qos === 2) send({ cmd: 'pubrec', messageId })
    }
    if (acknowledges && packet.cmd === 'pubrel') send({ cmd: 'pubcomp', messageId: packet.messageId })
  })
  socket.on('data', (chunk) => parser.parse(chunk))
  socket.on('error', () => undefined)
  socket.on('close', () => {
    closed = true
  })
  const willPacket = will && { qos: 0 as Qos, retain: false, ...will, payload: Buffer.from(will.payload) }
  send({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion: 4,
    clientId,
    clean,
    keepalive,
    ...(willPacket ? { will: willPacket } : {}),
  } as mqtt.Packet)

  const find = async (cmd: mqtt.Packet['cmd'], messageId?: number): Promise<mqtt.Packet & { messageId: number }> => {
    const isIt = (packet: mqtt.Packet) =>
      packet.cmd === cmd && (messageId === undefined || packet.messageId === messageId)
    const index = await until(() => {
      const found = unseen.findIndex(isIt)
      if (found < 0 && closed) throw new Error(`the connection closed before ${cmd}`)
      return found + 1
    }, `${cmd} for ${clientId}`)
    return unseen.splice(index - 1, 1)[0] as mqtt.Packet & { messageId: number }
  }
  const connack = (await find('connack')) as mqtt.IConnackPacket
  if (connack.returnCode !== 0) throw new Error(`CONNACK ${connack.returnCode}`)

  return {
    sessionPresent: connack.sessionPresent,
    packets,
    messages,
    closed: () => closed,
    send,
    write: (bytes) => void socket.write(bytes),
    async subscribe(...filters) {
      const messageId = ++nextId
      send({ cmd: 'subscribe', messageId, subscriptions: filters.map(([topic, qos]) => ({ topic, qos })) })
      return ((await find('suback', messageId)) as mqtt.ISubackPacket).granted as number[]
    },
    async unsubscribe(...filters) {
      const messageId = ++nextId
      send({ cmd: 'unsubscribe', messageId, unsubscriptions: filters })
      await find('unsuback', messageId)
    },
    async publish(topic, payload, { qos = 0, retain = false, dup = false } = {}) {
      const messageId = ++nextId
      send({ cmd: 'publish', topic, payload, qos, retain, dup, ...(qos > 0 ? { messageId } : {}) })
      if (qos === 1) await find('puback', messageId)
      if (qos !== 2) return
      await find('pubrec', messageId)
      send({ cmd: 'pubrel', messageId })
      await find('pubcomp', messageId)
    },
    next: (cmd) => find(cmd),
    async settle() {
      // A message to oneself takes the same way as those of others, and comes behind them.
      const topic = `settle/${clientId}/${++count}`
      const known = messages.length
      const messageId = ++nextId
      send({ cmd: 'subscribe', messageId, subscriptions: [{ topic, qos: 0 }] })
      await find('suback', messageId)
      send({ cmd: 'publish', topic, payload: '', qos: 0, retain: false, dup: false })
      const index = await until(() => messages.findIndex((one) => one.topic === topic) + 1, 'settled')
      messages.splice(index - 1, 1)
      if (index <= known) throw new Error('unreachable: a message of an earlier settle')
    },
    async leave() {
      send({ cmd: 'disconnect' })
      await until(() => closed, `${clientId} closed`)
    },
    async drop() {
      socket.destroy()
      await until(() => closed, `${clientId} closed`)
    },
    whenClosed: () => until(() => closed, `${clientId} closed`),
  }
}
