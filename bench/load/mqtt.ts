import { createConnection, type Socket } from 'node:net'
import * as mqtt from 'mqtt-packet'
import type { Account } from '../accounts.ts'

/** One MQTT 3.1.1 connection, packet by packet, with as little work per packet as there can be. */
export interface Connection {
  /** When its SYN was sent, by performance.now(). */
  openedAt: number
  send(packet: mqtt.Packet): void
  /** PUBLISH at QoS 1; `acknowledged` is called at its PUBACK. */
  publish(topic: string, payload: string, acknowledged: () => void, retain?: boolean): void
  puback(messageId: number): void
  subscribe(topics: string[], granted: () => void): void
  /** No DISCONNECT, and no state left in the kernel. */
  drop(): void
}

export interface ConnectionOptions {
  port: number
  account: Account
  keepaliveSeconds: number
  /** CONNACK 0. */
  ready(connection: Connection): void
  message(packet: mqtt.IPublishPacket): void
  /** It ended and nobody asked for that, or was refused. */
  lost(error: Error): void
}

const LAST_ID = 65_535

export function openConnection(options: ConnectionOptions): Connection {
  const { account, keepaliveSeconds } = options
  const socket: Socket = createConnection({ port: options.port, host: '127.0.0.1', noDelay: true })
  const parser = mqtt.parser({ protocolVersion: 4 })
  /** What a PUBACK or SUBACK with that identifier means. */
  const waiting = new Map<number, () => void>()
  let lastId = 0
  let dropped = false
  let pings: NodeJS.Timeout | undefined

  const nextId = (): number => {
    do lastId = (lastId % LAST_ID) + 1
    while (waiting.has(lastId))
    return lastId
  }
  const lost = (error: Error): void => {
    clearInterval(pings)
    if (!dropped) options.lost(error)
    dropped = true
  }
  const connection: Connection = {
    openedAt: performance.now(),
    send: (packet) => void socket.write(mqtt.generate(packet)),
    publish(topic, payload, acknowledged, retain = false) {
      const messageId = nextId()
      waiting.set(messageId, acknowledged)
      connection.send({ cmd: 'publish', topic, payload, qos: 1, messageId, retain, dup: false })
    },
    puback: (messageId) => void socket.write(Buffer.from([0x40, 2, messageId >> 8, messageId & 0xff])),
    subscribe(topics, granted) {
      const messageId = nextId()
      waiting.set(messageId, granted)
      connection.send({ cmd: 'subscribe', messageId, subscriptions: topics.map((topic) => ({ topic, qos: 1 })) })
    },
    drop() {
      dropped = true
      clearInterval(pings)
      socket.resetAndDestroy()
    },
  }

  parser.on('packet', (packet) => {
    if (packet.cmd === 'publish') return options.message(packet)
    if (packet.cmd === 'puback' || packet.cmd === 'suback') {
      const known = waiting.get(packet.messageId as number)
      waiting.delete(packet.messageId as number)
      const refused = packet.cmd === 'suback' && (packet.granted as number[]).find((code) => code > 1)
      if (refused) return lost(new Error(`subscription of ${account.id} refused: ${refused}`))
      return known?.()
    }
    if (packet.cmd === 'connack') {
      if (packet.returnCode !== 0) return lost(new Error(`login of ${account.id} refused: ${packet.returnCode}`))
      options.ready(connection)
    }
  })
  socket.on('connect', () => {
    connection.send({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: 4,
      clientId: account.id,
      clean: true,
      keepalive: keepaliveSeconds,
      ...(account.key === undefined ? {} : { username: account.id, password: Buffer.from(account.key) }),
    })
    pings = setInterval(() => connection.send({ cmd: 'pingreq' }), keepaliveSeconds * 750)
  })
  socket.on('data', (chunk) => parser.parse(chunk))
  socket.on('error', lost)
  socket.on('close', () => lost(new Error(`the connection of ${account.id} was closed`)))
  return connection
}

/** A connection that only publishes, to a broker that asks for no key. */
export const openPublisher = (port: number): Promise<Connection> =>
  new Promise((resolve, reject) => {
    openConnection({
      port,
      account: { id: 'publisher' },
      keepaliveSeconds: 60,
      ready: resolve,
      message: () => undefined,
      lost: reject,
    })
  })
