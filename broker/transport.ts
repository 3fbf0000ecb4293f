import type { Aedes, AedesPublishPacket } from 'aedes'
import type { Logger } from 'pino'
import type { Outlet, SessionRef, Transport } from '../control/transport.ts'
import type { Settings } from '../schemas/settings.ts'
import { buildTopic, COMMAND_TOPICS, parseTopic, type TopicName, type TopicParams } from '../schemas/topics.ts'
import type { Connection, Connections } from './connections.ts'

/** One message on its way: to which connections, what their PUBACK will mean, and to whom it was written. */
interface Forward {
  to: Set<Connection>
  handover: { commandId: string; attempt: number } | null
  written: Set<string>
}

export interface MqttTransport extends Transport, Outlet {
  /** Aedes asks before each write to a client: a command goes to the one it was claimed for, and its PUBACK is expected. */
  authorizeForward(connection: Connection, packet: AedesPublishPacket): AedesPublishPacket | null
}

export function createTransport(deps: {
  settings: Settings
  log: Logger
  connections: Connections
  broker(): Aedes
}): MqttTransport {
  const { connections } = deps
  const root = deps.settings.MQTT_TOPIC_ROOT
  /** Aedes copies packets on their way, but not the payload: it tells which forward a write belongs to. */
  const forwards = new WeakMap<Buffer, Forward>()

  function publish(
    name: TopicName,
    params: TopicParams,
    payload: Buffer,
    options: { qos: 0 | 1; retain: boolean },
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const packet = { cmd: 'publish' as const, topic: buildTopic(root, name, params), payload, dup: false, ...options }
      deps.broker().publish(packet, (error) => (error ? reject(error) : resolve()))
    })
  }

  /** Publishes once, written to these sessions alone if they are still the current ones; answers the clients it was written to. */
  async function send(
    name: TopicName,
    params: TopicParams,
    sessions: SessionRef[],
    message: unknown,
    handover: Forward['handover'],
  ): Promise<Set<string>> {
    const to = new Set<Connection>()
    for (const session of sessions) {
      const connection = connections.main(session.clientId)
      if (connection?.session?.epoch === session.epoch && !connection.client.closed) to.add(connection)
    }
    const forward: Forward = { to, handover, written: new Set() }
    if (to.size === 0) return forward.written
    const payload = encode(message)
    forwards.set(payload, forward)
    await publish(name, params, payload, { qos: 1, retain: false })
    return forward.written
  }

  const encode = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

  return {
    async forward(session, message, handover) {
      const written = await send('clientCommands', { clientId: session.clientId }, [session], message, handover)
      return written.has(session.clientId)
    },

    async close(session, why) {
      const connection = connections.main(session.clientId)
      if (connection?.session?.epoch !== session.epoch) return
      deps.log.info({ clientId: session.clientId, reason: why }, 'session closed')
      connection.client.close()
      await connection.ended
    },

    async forwardShared(target, sessions, message) {
      const handover = { commandId: message.id, attempt: message.attempt }
      if (target.kind === 'zone') return send('zoneCommands', { zone: target.zone }, sessions, message, handover)
      return send('broadcastCommands', {}, sessions, message, handover)
    },

    authorizeForward(connection, packet) {
      const { client } = connection
      if (connection.login.kind !== 'client') return packet
      const topic = parseTopic(root, packet.topic)
      if (!topic || client.closed) return null
      const forward = forwards.get(packet.payload as Buffer)
      if (COMMAND_TOPICS.includes(topic.name) && !forward?.to.has(connection)) return null
      // A zone that the client has just lost: its unsubscription may still be on its way.
      if (topic.params.zone !== undefined && !connection.session?.config.zones.includes(topic.params.zone)) return null
      if (packet.qos === 0) return packet
      const id = connection.packetIds.take({ handover: forward?.handover ?? null, at: performance.now() })
      if (id === undefined) return null
      packet.messageId = id
      forward?.written.add(connection.login.clientId)
      return packet
    },

    reply: (clientId, reply) => publish('clientReplies', { clientId }, encode(reply), { qos: 1, retain: false }),
    retainPresence: (clientId, presence) =>
      publish('clientStatus', { clientId }, encode(presence), { qos: 1, retain: true }),

    async retainConfig(clientId, config) {
      const client = connections.main(clientId)?.client
      const lost = Object.keys(client?.subscriptions ?? {}).filter((filter) => {
        const zone = parseTopic(root, filter)?.params.zone
        return zone !== undefined && !config.zones.includes(zone)
      })
      if (client && lost.length > 0)
        await new Promise<void>((resolve) => client.unsubscribe(lost as never, () => resolve()))
      await publish('clientConfig', { clientId }, encode(config), { qos: 1, retain: true })
    },

    async forget(clientId) {
      const nothing = { qos: 1, retain: true } as const
      await publish('clientStatus', { clientId }, Buffer.alloc(0), nothing)
      await publish('clientConfig', { clientId }, Buffer.alloc(0), nothing)
    },

    disconnect(clientId, why, keyHash) {
      for (const connection of connections.ofClient(clientId)) {
        const { login } = connection
        if (connection.client.closed || login.kind === 'principal') continue
        if (keyHash && !keyHash.equals(login.keyHash)) continue
        deps.log.info({ clientId, connection: connection.client.id, reason: why }, 'client disconnected by the server')
        connection.client.close()
      }
    },
  }
}
