import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import mqtt from 'mqtt-packet'
import { until } from '../support/until.ts'

/** A broker that does what a test says, mistakes and losses too. It acknowledges all but the reports, if told so. */
export interface ScriptedBroker {
  port: number
  /** What devices sent, over all connections, in order. */
  packets: mqtt.Packet[]
  acknowledgeReports: boolean
  publish(topic: string, body: unknown): void
  drop(): void
  /** The bodies of the reports of one command, without `accepted` and progress. */
  outcomes(id: string): { status: string; attempt: number }[]
  subscribed(topic: string): Promise<void>
  stop(): Promise<void>
}

export async function startScriptedBroker(): Promise<ScriptedBroker> {
  const packets: mqtt.Packet[] = []
  const sockets = new Set<Socket>()
  let current: Socket | undefined
  let topics = new Set<string>()
  let nextId = 1
  const broker = {
    packets,
    acknowledgeReports: true,
    publish(topic: string, body: unknown) {
      const payload = JSON.stringify(body)
      current?.write(
        mqtt.generate({ cmd: 'publish', topic, payload, qos: 1, messageId: nextId++, dup: false, retain: false }),
      )
    },
    drop: () => current?.destroy(),
    outcomes: (id: string) =>
      packets
        .filter((packet) => packet.cmd === 'publish' && packet.topic.endsWith(`/commands/${id}/status`))
        .map((packet) => JSON.parse((packet as mqtt.IPublishPacket).payload.toString()))
        .filter(({ status }) => status !== 'accepted' && status !== 'running'),
    subscribed: async (topic: string) => void (await until(() => topics.has(topic), `a subscription to ${topic}`)),
  }
  const server = createServer((socket) => {
    const parser = mqtt.parser({ protocolVersion: 4 })
    const send = (packet: mqtt.Packet): void => void socket.write(mqtt.generate(packet))
    sockets.add(socket)
    socket.on('data', (chunk) => parser.parse(chunk))
    socket.on('error', () => undefined)
    parser.on('packet', (packet) => {
      packets.push(packet)
      if (packet.cmd === 'connect') {
        if (!packet.clientId.includes('~')) {
          current = socket
          topics = new Set()
        }
        send({ cmd: 'connack', returnCode: 0, sessionPresent: false })
      } else if (packet.cmd === 'subscribe') {
        const granted = packet.subscriptions.map(() => 1)
        send({ cmd: 'suback', messageId: packet.messageId, granted } as mqtt.ISubackPacket)
        for (const { topic } of packet.subscriptions) topics.add(topic)
      } else if (packet.cmd === 'publish') {
        const report = packet.topic.includes('/commands/')
        if (broker.acknowledgeReports || !report) send({ cmd: 'puback', messageId: packet.messageId as number })
      } else if (packet.cmd === 'pingreq') send({ cmd: 'pingresp' })
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return Object.assign(broker, {
    port: (server.address() as AddressInfo).port,
    async stop() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  })
}
