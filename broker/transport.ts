import type { Aedes, AedesPublishPacket } from 'aedes'
import type { Logger } from 'pino'
import type { Tell } from '../control/cluster/hints.ts'
import type { Outlet, SessionRef, Transport } from '../control/transport.ts'
import type { ErrorReply } from '../schemas/messages.ts'
import type { Settings } from '../schemas/settings.ts'
import { buildTopic, COMMAND_TOPICS, parseTopic, type TopicName, type TopicParams } from '../schemas/topics.ts'
import { type Connection, type Connections, nothing } from './connections.ts'
import type { Copies } from './copies.ts'
import type { RetainedMessages } from './persistence.ts'

/** One message on its way: to which connections, what their PUBACK will mean, and to whom it was written. */
interface Forward {
  to: Set<Connection>
  /** It goes to those who are in this zone. */
  zone: string | undefined
  handover: { commandId: string; attempt: number } | null
  written: Set<string>
}

export interface MqttTransport extends Transport, Outlet {
  /** Aedes asks before each write to a client: a command goes to the one it was claimed for, and its PUBACK is expected. */
  authorizeForward(connection: Connection, packet: AedesPublishPacket): AedesPublishPacket | null
  /** Whether somebody listens to the traffic, here or at another node. */
  isHeard(): boolean
}

export function createTransport(deps: {
  settings: Settings
  log: Logger
  connections: Connections
  broker(): Aedes
  /** Everything that was to be written until now had its turn. */
  delivered(): Promise<void>
  copies(): Copies
  retained: RetainedMessages
  /** Tells the other nodes, if there are any. */
  tell: Tell
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
    return publishTo(buildTopic(root, name, params), payload, options)
  }

  function publishTo(topic: string, payload: Buffer, options: { qos: 0 | 1; retain: boolean }): Promise<void> {
    return new Promise((resolve, reject) => {
      const packet = { cmd: 'publish' as const, topic, payload, dup: false, ...options }
      deps.broker().publish(packet, (error) => (error ? reject(error) : resolve()))
    })
  }

  const isHeard = (): boolean => connections.hasListener() || deps.copies().areWanted()

  /** What only one client gets needs nobody to be looked for. It has its turn, and is not waited for until the client has read it. */
  function writeTo({ client }: Connection, topic: string, payload: Buffer): Promise<void> {
    const packet = { cmd: 'publish' as const, topic, payload, dup: false, qos: 1 as const, retain: false }
    client.deliverQoS({ ...packet, brokerId: null, brokerCounter: 0 }, nothing)
    return deps.delivered()
  }

  function publishCopy(topic: string, payload: Buffer): Promise<void> {
    deps.copies().isCopy(payload)
    return publishTo(topic, payload, { qos: 1, retain: false })
  }

  const replyHere = (clientId: string, reply: ErrorReply): Promise<void> =>
    publishCopy(buildTopic(root, 'clientReplies', { clientId }), encode(reply))

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
    const forward: Forward = { to, zone: params.zone, handover, written: new Set() }
    if (to.size === 0) return forward.written
    const payload = encode(message)
    forwards.set(payload, forward)
    const topic = buildTopic(root, name, params)
    const [only] = to
    if (only && to.size === 1 && !isHeard()) await writeTo(only, topic, payload)
    else await publishTo(topic, payload, { qos: 1, retain: false })
    return forward.written
  }

  /** Also what is no topic of ours: none of them is written to a client but by `send`. */
  function isCommand(topic: string): boolean {
    const parsed = parseTopic(root, topic)
    return !parsed || COMMAND_TOPICS.includes(parsed.name)
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

    isHeard,

    authorizeForward(connection, packet) {
      const { client } = connection
      if (connection.login.kind !== 'client') return packet
      if (client.closed) return null
      const forward = forwards.get(packet.payload as Buffer)
      if (forward ? !forward.to.has(connection) : isCommand(packet.topic)) return null
      // A zone that the client has just lost: its unsubscription may still be on its way.
      if (forward?.zone !== undefined && !connection.session?.config.zones.includes(forward.zone)) return null
      if (packet.qos === 0) return packet
      const id = connection.packetIds.take({ handover: forward?.handover ?? null, at: performance.now() })
      if (id === undefined) return null
      packet.messageId = id
      forward?.written.add(connection.login.clientId)
      return packet
    },

    async reply(clientId, reply) {
      deps.tell('reply', { clientId, reply })
      await replyHere(clientId, reply)
    },
    replyHere,
    publishCopy: (topic, payload) => publishCopy(topic, Buffer.from(payload)),
    listensElsewhere: (node, wanted) => deps.copies().listensElsewhere(node, wanted),
    retainStatus: (clientId, status) => publish('clientStatus', { clientId }, encode(status), { qos: 1, retain: true }),

    retained(clientId) {
      const read = (name: TopicName): unknown => {
        const packet = deps.retained.get(buildTopic(root, name, { clientId }))
        return packet && JSON.parse(packet.payload.toString())
      }
      return { status: read('clientStatus'), config: read('clientConfig') }
    },

    retainedClients() {
      const ids = [...deps.retained.keys()].map((topic) => parseTopic(root, topic)?.params.clientId)
      return new Set(ids.filter((id) => id !== undefined))
    },

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
