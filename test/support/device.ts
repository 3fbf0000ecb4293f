import { once } from 'node:events'
import { createConnection, type Socket } from 'node:net'
import * as mqtt from 'mqtt-packet'
import type { TestServer } from './server.ts'
import { until } from './until.ts'

export const ROOT = 'signalbox/v1'

/** A device that speaks MQTT 3.1.1 packet by packet: nothing happens behind the test's back, a PUBACK least of all. */
export interface Device {
  clientId: string
  /** Every packet received, in order. */
  packets: mqtt.Packet[]
  closed: boolean
  send(packet: mqtt.Packet): void
  /** Bytes as they are, for packets that no library would make. */
  write(bytes: Buffer): void
  /** SUBSCRIBE; answers the granted codes of the SUBACK. */
  subscribe(topics: string | string[], qos?: 0 | 1 | 2): Promise<number[]>
  unsubscribe(topic: string): Promise<void>
  /** PUBLISH at QoS 1; resolves with the PUBACK, rejects when the connection closes first. */
  publish(topic: string, payload: unknown, options?: { retain?: boolean; qos?: 0 | 1 | 2 }): Promise<void>
  report(commandId: string, report: Record<string, unknown>): Promise<void>
  /** PUBLISH packets received on a topic, payload parsed. */
  received(
    topic?: string,
  ): { topic: string; messageId: number | undefined; retain: boolean; dup: boolean; payload: Record<string, unknown> }[]
  /** Waits for the next command (or cancel) on the own topic that was not taken yet; it is not acknowledged. */
  nextCommand(limitMs?: number): Promise<{ messageId: number; payload: Record<string, unknown> }>
  ack(messageId: number): void
  ping(): Promise<void>
  /** DISCONNECT and close. */
  end(): Promise<void>
  /** The network is gone: no DISCONNECT. */
  drop(): void
  /** Reads no more, not even the end of the connection. */
  stopReading(): void
  /** Resolves when the server has closed the connection. */
  whenClosed(): Promise<void>
}

export interface DeviceOptions {
  clientId: string
  username?: string
  password: string
  clean?: boolean
  keepalive?: number
  will?: { topic: string; payload: Buffer; qos?: 0 | 1 | 2; retain?: boolean }
  protocolVersion?: 3 | 4 | 5
}

/** Opens a TCP connection and sends CONNECT; answers with the CONNACK's return code and the device. */
export async function connectDevice(
  server: Pick<TestServer, 'mqttPort'>,
  options: DeviceOptions,
): Promise<Device & { returnCode: number; sessionPresent: boolean }> {
  const socket = createConnection({ port: server.mqttPort, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  const device = speak(socket, options.clientId)
  device.send({
    cmd: 'connect',
    protocolId: options.protocolVersion === 3 ? 'MQIsdp' : 'MQTT',
    protocolVersion: options.protocolVersion ?? 4,
    clientId: options.clientId,
    clean: options.clean ?? true,
    keepalive: options.keepalive ?? 60,
    username: options.username ?? options.clientId,
    password: Buffer.from(options.password),
    ...(options.will ? { will: { qos: 0, retain: false, ...options.will } } : {}),
  } as mqtt.Packet)
  const connack = await until(
    () =>
      device.packets.find((packet) => packet.cmd === 'connack') ??
      (device.closed ? ({ returnCode: -1 } as never) : undefined),
    'CONNACK',
  )
  return Object.assign(device, {
    returnCode: (connack as mqtt.IConnackPacket).returnCode ?? -1,
    sessionPresent: (connack as mqtt.IConnackPacket).sessionPresent ?? false,
  })
}

/** Registers a client over HTTP, connects as it and subscribes to its commands at QoS 1. */
export async function startDevice(
  server: TestServer,
  clientId: string,
  client: Record<string, unknown> = {},
): Promise<Device & { clientKey: string }> {
  const created = await server.api.post('/clients', { id: clientId, ...client })
  if (created.status !== 201) throw new Error(`client ${clientId}: ${JSON.stringify(created.body)}`)
  const device = await connectDevice(server, { clientId, password: created.body.clientKey })
  await device.subscribe(`${ROOT}/clients/${clientId}/commands`)
  return Object.assign(device, { clientKey: created.body.clientKey as string })
}

function speak(socket: Socket, clientId: string): Device {
  const parser = mqtt.parser({ protocolVersion: 4 })
  const packets: mqtt.Packet[] = []
  let taken = 0
  let nextId = 1
  let closed = false
  parser.on('packet', (packet) => packets.push(packet))
  socket.on('data', (chunk) => parser.parse(chunk))
  socket.on('error', () => undefined)
  socket.on('close', () => {
    closed = true
  })
  const commandsTopic = `${ROOT}/clients/${clientId}/commands`
  const publishes = (): mqtt.IPublishPacket[] => packets.filter((packet) => packet.cmd === 'publish')
  const parsed = (packet: mqtt.IPublishPacket) => ({
    topic: packet.topic,
    messageId: packet.messageId,
    retain: packet.retain,
    dup: packet.dup,
    payload: packet.payload.length > 0 ? JSON.parse(packet.payload.toString()) : {},
  })
  const takeId = (): number => nextId++ % 65_536 || nextId++

  const answerTo = async <T extends mqtt.Packet>(cmd: T['cmd'], messageId: number): Promise<T> =>
    until(() => {
      const answer = packets.find((packet) => packet.cmd === cmd && packet.messageId === messageId)
      if (!answer && closed) throw new Error(`the connection closed before ${cmd} ${messageId}`)
      return answer as T | undefined
    }, `${cmd} ${messageId}`)

  const device: Device = {
    clientId,
    packets,
    get closed() {
      return closed
    },
    send: (packet) => void socket.write(mqtt.generate(packet)),
    write: (bytes) => void socket.write(bytes),
    async subscribe(topics, qos = 1) {
      const messageId = takeId()
      const subscriptions = [topics].flat().map((topic) => ({ topic, qos }))
      device.send({ cmd: 'subscribe', messageId, subscriptions })
      return (await answerTo<mqtt.ISubackPacket>('suback', messageId)).granted as number[]
    },
    async unsubscribe(topic) {
      const messageId = takeId()
      device.send({ cmd: 'unsubscribe', messageId, unsubscriptions: [topic] })
      await answerTo('unsuback', messageId)
    },
    async publish(topic, payload, { retain = false, qos = 1 } = {}) {
      const messageId = takeId()
      const bytes = Buffer.isBuffer(payload) || typeof payload === 'string' ? payload : JSON.stringify(payload)
      device.send({ cmd: 'publish', topic, payload: bytes, qos, retain, dup: false, ...(qos > 0 ? { messageId } : {}) })
      if (qos === 1) await answerTo('puback', messageId)
    },
    report: (commandId, report) => device.publish(`${ROOT}/clients/${clientId}/commands/${commandId}/status`, report),
    received: (topic) =>
      publishes()
        .filter((packet) => topic === undefined || packet.topic === topic)
        .map(parsed),
    async nextCommand(limitMs) {
      const index = taken++
      const packet = await until(
        () => publishes().filter((one) => one.topic === commandsTopic)[index],
        `command ${index + 1} for ${clientId}`,
        limitMs,
      )
      return { messageId: packet.messageId as number, payload: parsed(packet).payload }
    },
    ack: (messageId) => device.send({ cmd: 'puback', messageId }),
    async ping() {
      const before = packets.filter((packet) => packet.cmd === 'pingresp').length
      device.send({ cmd: 'pingreq' })
      await until(() => packets.filter((packet) => packet.cmd === 'pingresp').length > before, 'PINGRESP')
    },
    async end() {
      device.send({ cmd: 'disconnect' })
      socket.end()
      await device.whenClosed()
    },
    drop: () => socket.destroy(),
    stopReading: () => void socket.pause(),
    whenClosed: async () => {
      await until(() => closed, `${clientId} closed`)
    },
  }
  return device
}
