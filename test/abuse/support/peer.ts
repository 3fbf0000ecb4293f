import { once } from 'node:events'
import { createConnection } from 'node:net'
import type { Duplex } from 'node:stream'
import * as mqtt from 'mqtt-packet'
import { createWebSocketStream, WebSocket } from 'ws'
import { connect, PINGREQ, packet, text, u16 } from '../../mqtt-clauses/support/wire.ts'
import type { TestServer } from '../../support/server.ts'
import type { Credentials } from './logins.ts'

export const MQTT_DOORS = ['MQTT', 'WebSocket'] as const
export type MqttDoor = (typeof MQTT_DOORS)[number]

type Text = string | Buffer

export interface Connect {
  clientId?: Text
  username?: Text | undefined
  clean?: boolean
  will?: { topic: Text; payload: Text; qos: number; retain: boolean }
}

/** Somebody at an MQTT door, who sends bytes as he likes. */
export interface Peer {
  /** Of the CONNACK; -1 when the connection was closed without one. */
  returnCode: number
  packets: mqtt.Packet[]
  closed: boolean
  send(...packets: Buffer[]): void
  /** Whether it was acknowledged, or the connection closed instead; at QoS 0 it waits for that, since nothing else can be seen. */
  publish(topic: Text, payload: Text, options?: { qos?: 0 | 1 | 2; retain?: boolean }): Promise<'taken' | 'closed'>
  /** The code for one filter, or that the connection was closed. */
  subscribe(filter: Text, qos?: number): Promise<number | 'closed'>
  /** The first publish from this packet on that it is about. */
  next(is: (packet: mqtt.IPublishPacket) => boolean, from: number): Promise<mqtt.IPublishPacket>
  /** Everything sent so far was answered; whether the connection still is. */
  settle(): Promise<'open' | 'closed'>
  /** DISCONNECT, or just the end of the connection; resolves when it is closed. */
  leave(how?: 'disconnect' | 'drop'): Promise<void>
}

/** Connects with these credentials; what is not said is as an honest client would have it. */
export async function enterBy(
  door: MqttDoor,
  server: Pick<TestServer, 'mqttPort' | 'mqttWebSocket'>,
  { username: own, secret }: Credentials,
  { clientId = own ?? 'nobody', username = own, clean = true, will }: Connect = {},
): Promise<Peer> {
  const stream = await openDoor(door, server)
  const packets: mqtt.Packet[] = []
  const listeners = new Set<() => void>()
  let closed = false
  const changed = (): void => {
    for (const listener of [...listeners]) listener()
  }
  const parser = mqtt.parser({ protocolVersion: 4 })
  parser.on('packet', (one: mqtt.Packet) => packets.push(one))
  stream.on('data', (chunk) => {
    parser.parse(chunk)
    changed()
  })
  stream.on('error', () => undefined)
  const end = (): void => {
    closed = true
    stream.destroy()
    changed()
  }
  // A WebSocket's stream has an end, and closes only when we end it, too.
  stream.on('end', end).on('close', end)
  /** What `look` finds, or undefined once the connection is closed without it. */
  const find = <T>(look: () => T | undefined): Promise<T | undefined> =>
    new Promise((resolve) => {
      const listener = (): void => {
        const found = look()
        if (found === undefined && !closed) return
        listeners.delete(listener)
        resolve(found)
      }
      listeners.add(listener)
      listener()
    })
  const answer = (cmd: string, messageId?: number): Promise<mqtt.Packet | undefined> =>
    find(() => packets.find((one) => one.cmd === cmd && (messageId === undefined || one.messageId === messageId)))

  const flags =
    (clean ? 2 : 0) |
    (will ? 4 | (will.qos << 3) | (will.retain ? 32 : 0) : 0) |
    (username === undefined ? 0 : 128) |
    (secret === undefined ? 0 : 64)
  const rest = [will?.topic, will?.payload, username, secret].flatMap((part) =>
    part === undefined ? [] : [text(part)],
  )
  stream.write(connect({ clientId, flags, rest }))
  const connack = (await answer('connack')) as mqtt.IConnackPacket | undefined
  let lastId = 0

  const peer: Peer = {
    returnCode: connack?.returnCode ?? -1,
    packets,
    get closed() {
      return closed
    },
    send: (...bytes) => void stream.write(Buffer.concat(bytes)),
    async publish(topic, payload, { qos = 1, retain = false } = {}) {
      const id = ++lastId
      const first = 0x30 | (qos << 1) | (retain ? 1 : 0)
      peer.send(packet(first, text(topic), ...(qos > 0 ? [u16(id)] : []), Buffer.from(payload as string)))
      return (await answer(['pubrel', 'puback', 'pubrec'][qos] as string, id)) ? 'taken' : 'closed'
    },
    async subscribe(filter, qos = 1) {
      const id = ++lastId
      peer.send(packet(0x82, u16(id), text(filter), qos))
      const suback = (await answer('suback', id)) as mqtt.ISubackPacket | undefined
      return suback ? (suback.granted[0] as number) : 'closed'
    },
    async next(is, from) {
      const found = await find(() => packets.slice(from).find((one) => one.cmd === 'publish' && is(one)))
      if (!found) throw new Error('the connection closed before the message came')
      return found as mqtt.IPublishPacket
    },
    async settle() {
      const before = pongs()
      peer.send(PINGREQ)
      return (await find(() => (pongs() > before ? true : undefined))) ? 'open' : 'closed'
    },
    async leave(how = 'drop') {
      if (how === 'disconnect') peer.send(Buffer.from([0xe0, 0]))
      else stream.destroy()
      await find(() => undefined)
    },
  }
  const pongs = (): number => packets.filter(({ cmd }) => cmd === 'pingresp').length
  return peer
}

async function openDoor(door: MqttDoor, server: Pick<TestServer, 'mqttPort' | 'mqttWebSocket'>): Promise<Duplex> {
  if (door === 'MQTT') {
    const socket = createConnection({ port: server.mqttPort, host: '127.0.0.1', noDelay: true })
    await once(socket, 'connect')
    return socket
  }
  const socket = new WebSocket(server.mqttWebSocket, 'mqtt')
  await once(socket, 'open')
  return createWebSocketStream(socket)
}
