import { Aedes, type AedesPublishPacket, type AuthenticateError, type Client, type Subscription } from 'aedes'
import mqemitter from 'mqemitter'
import type { Logger } from 'pino'
import type { Certificate } from '../control/certificate.ts'
import { createKeyedLock } from '../control/sessions/keyed-lock.ts'
import { createTurns, type Turns } from '../control/turns.ts'
import { plainHost, type Settings } from '../schemas/settings.ts'
import { type Login, subjectOf } from './access.ts'
import { answerEveryFilter, deliverOnce, forgetConnect, noDuplicates, publishWhatIsHeard } from './aedes-internals.ts'
import { type Connection, type Connections, nothing } from './connections.ts'
import type { ConnectPacket } from './gate/connect-packet.ts'
import { createGate, type Guest, type Refused } from './gate/gate.ts'
import type { PacketLimits } from './gate/packets.ts'
import { createTicks } from './gate/ticks.ts'
import { createIntake } from './intake.ts'
import type { LimitedLog } from './limited-log.ts'
import { type Listener, type ListenerPlace, listenTcp, listenWebSocket } from './listeners.ts'
import { REFUSED, type RetainedMessages } from './persistence.ts'
import type { Policy } from './policy.ts'
import { type Refusal, refusalOf } from './refusal.ts'
import { highestQos } from './topic-filter.ts'

export interface BrokerPorts {
  mqtt: number
  ws: number
  mqtts: number | undefined
  wss: number | undefined
}

type AedesBroker = Aedes & { clients: Record<string, Client | undefined> }

/** A broker that is safe to listen with: the gate, and Aedes with what it gets wrong put right. What it is for, its policy says. */
export interface Assembly {
  readonly aedes: AedesBroker
  /** Resolves when everything that was to be written until now had its turn, whether it was read or not. */
  delivered(): Promise<void>
  /** With a certificate also over TLS. */
  listen(certificate?: Certificate): Promise<BrokerPorts>
  /** Takes no more connections, closes all, and waits until their sessions have ended. */
  stop(): Promise<void>
}

export interface AssemblyDeps {
  settings: Settings
  log: Logger
  limitedLog: LimitedLog
  connections: Connections
  policy: Policy
  persistence: { retained: RetainedMessages }
}

export async function assemble(deps: AssemblyDeps): Promise<Assembly> {
  const { settings, log, limitedLog, connections, policy } = deps
  const limits = packetLimits(settings)
  const locks = createKeyedLock()
  const deliveries = createTurns()
  /** Whose login is not through yet. */
  const entering = new WeakMap<Client, Guest<{ login: Login; connect: ConnectPacket }>>()

  const aedes = (await Aedes.createBroker({
    mq: createEmitter(deliveries),
    persistence: deps.persistence,
    concurrency: 0,
    drainTimeout: settings.MQTT_SLOW_READER_SECONDS * 1000,
    maxTopicLevels: settings.MQTT_MAX_TOPIC_LEVELS,
    preConnect(client, packet, done) {
      policy.connecting?.(connections.of(client), packet)
      done(null, true)
    },
    authenticate(client, _username, _password, done) {
      enter(connections.of(client)).then(
        () => done(null, true),
        (error) => done(refused(connections.of(client), error), false),
      )
    },
    authorizePublish(client, packet, done) {
      if (!client) return done(new Error('a message of no connection'))
      // [MQTT-3.3.1-3]
      packet.dup = false
      policy.publish(connections.of(client), packet).then(
        () => done(null),
        (error) => done(error),
      )
    },
    authorizeSubscribe(client, subscription, done) {
      done(null, authorizeSubscribe(connections.of(client), subscription))
    },
    authorizeForward: (client, packet) => policy.forward(connections.of(client), packet),
  })) as AedesBroker
  const duplicates = noDuplicates(aedes.id)
  publishWhatIsHeard(aedes, () => policy.isHeard?.() ?? true)

  const shortestMs = Math.min(settings.MQTT_CONNECT_TIMEOUT_SECONDS, settings.MQTT_FRAME_TIMEOUT_SECONDS) * 1000
  const ticks = createTicks(shortestMs, () => {
    gate.step()
    intake.step()
  })
  const intake = createIntake({ settings, limitedLog, now: ticks.now })
  const gate = createGate({
    settings,
    log: limitedLog,
    packetLimits: limits,
    now: ticks.now,
    identify: async (connect, ip) => ({ login: await policy.identify(connect, ip), connect }),
    refused: tellRefusal,
    welcome(guest) {
      const connection = connections.add(aedes.handle(guest.stream), { ...guest, login: guest.login.login })
      entering.set(connection.client, guest)
      answerEveryFilter(connection.client)
      const grantedQos = (topic: string): number | undefined => highestQos(connection.filters, topic)
      deliverOnce(connection.client, deliveries, grantedQos, deps.persistence.retained)
      intake.begin(connection, guest)
    },
  })

  /** One connection per client id at a time from here until it is ready or gone: without it two may live at once. */
  async function enter(connection: Connection): Promise<void> {
    const { client } = connection
    const guest = entering.get(client) as Guest<{ login: Login; connect: ConnectPacket }>
    connection.release = releaseOnce(connection, await locks.acquire(client.id), guest.settled)
    client.conn.on('close', () => connection.release())
    if (isGone(client)) return connection.release()
    await takeOver(client)
    // Its end would not be seen any more: the session would never end.
    if (isGone(client)) return connection.release()
    client.duplicates = duplicates
    await policy.enter(connection, guest.login.connect)
    entering.delete(client)
  }

  /**
   * [MQTT-3.1.4-2], with the older connection gone completely first: Aedes forgets a client by its id while it closes, and would
   * forget the new one with it.
   */
  async function takeOver(client: Client): Promise<void> {
    const older = aedes.clients[client.id]
    if (older) {
      policy.replace?.(connections.of(older), connections.of(client))
      older.close()
      await connections.of(older).unregistered
    }
  }

  /** `about`: who is told apart by it in the log. */
  function tellRefusal(refusal: Refusal, about: string, { address, client, username }: Refused): void {
    policy.refused?.(refusal, username)
    const fields = { address, client, username, code: refusal.returnCode, reason: refusal.message }
    limitedLog('warn', about, fields, 'connection refused')
  }

  function refused({ address, client, login }: Connection, error: unknown): AuthenticateError {
    const refusal = refusalOf(error)
    const username = entering.get(client)?.login.connect.username
    tellRefusal(refusal, subjectOf(login), { address, client: client.id, username })
    return refusal
  }

  function authorizeSubscribe(connection: Connection, subscription: Subscription): Subscription | null {
    const { filters, client, login } = connection
    const { topic: filter, qos } = subscription
    const verdict =
      filters.size >= settings.MQTT_MAX_SUBSCRIPTIONS && !filters.has(filter)
        ? `it has ${filters.size} subscriptions already`
        : policy.subscribe(connection, filter, qos)
    if (typeof verdict === 'string') {
      limitedLog('warn', subjectOf(login), { client: client.id, filter, reason: verdict }, 'subscription refused')
      subscription.qos = REFUSED as never
      return null
    }
    filters.set(filter, verdict.granted)
    subscription.qos = verdict.granted
    return { ...subscription, qos: 2 }
  }

  aedes.on('clientReady', (client) => {
    const connection = connections.of(client)
    forgetConnect(connection.client)
    connection.release()
  })
  aedes.on('unsubscribe', (gone, client) => {
    for (const filter of gone) connections.of(client).filters.delete(filter)
  })
  aedes.on('clientDisconnect', (client) => connections.of(client).markUnregistered())
  aedes.on('clientError', (client, error) => logOnce(connections.of(client), error))
  aedes.on('connectionError', (client, error) => logOnce(connections.of(client), error))
  aedes.on('error' as 'closed', ((error: Error) => log.error({ err: error }, 'broker error')) as () => void)

  /** A failing connection fails each of its pending writes: one line is enough. */
  const reported = new WeakSet<Connection>()
  function logOnce(connection: Connection, error: Error): void {
    if (reported.has(connection)) return
    reported.add(connection)
    const fields = { client: connection.client.id, reason: error.message }
    limitedLog('info', subjectOf(connection.login), fields, 'connection closed')
  }

  async function endAll(): Promise<void> {
    const ending = [...connections.all()].map((connection) => {
      connection.client.close()
      return connection.ended
    })
    await Promise.all(ending)
  }

  const listeners: Listener[] = []
  return {
    aedes,
    delivered: () => new Promise((resolve) => deliveries.after(resolve)),
    async listen(certificate) {
      const add = async (kind: typeof listenWebSocket, place: ListenerPlace): Promise<number> => {
        const listener = await kind(gate, place, limits)
        listeners.push(listener)
        return listener.port
      }
      const host = plainHost(settings, 'MQTT_HOST')
      const tls = { host: settings.MQTT_HOST, certificate }
      return {
        mqtt: await add(listenTcp, { host, port: settings.MQTT_PORT, setting: 'MQTT_PORT' }),
        ws: await add(listenWebSocket, { host, port: settings.MQTT_WS_PORT, setting: 'MQTT_WS_PORT' }),
        mqtts:
          certificate && (await add(listenTcp, { ...tls, port: settings.MQTT_TLS_PORT, setting: 'MQTT_TLS_PORT' })),
        wss:
          certificate &&
          (await add(listenWebSocket, { ...tls, port: settings.MQTT_WSS_PORT, setting: 'MQTT_WSS_PORT' })),
      }
    },
    async stop() {
      const closed = listeners.map((listener) => listener.close())
      gate.stop()
      ticks.stop()
      await endAll()
      await new Promise<void>((resolve) => aedes.close(resolve))
      // Aedes leaves a connection open whose login was under way; it may even have logged in meanwhile.
      for (const listener of listeners) listener.terminate()
      await endAll()
      await Promise.all(closed)
    },
  }
}

/** Not in `enter`: what listens there for as long as the connection lives would keep what is forgotten here. */
function releaseOnce(connection: Connection, unlock: () => void, settled: () => void): () => void {
  return () => {
    connection.release = nothing
    unlock()
    settled()
  }
}

const isGone = (client: Client): boolean => client.closed || client.conn.destroyed

/** A payload of just the largest size has to fit, whatever its topic: behind a fixed header of 5 bytes and an identifier of 2. */
const packetLimits = (settings: Settings): PacketLimits => ({
  connectBytes: settings.MQTT_MAX_CONNECT_BYTES,
  packetBytes: 5 + 2 + settings.MQTT_MAX_TOPIC_BYTES + 2 + settings.MAX_PAYLOAD_BYTES,
  topicBytes: settings.MQTT_MAX_TOPIC_BYTES,
  topicLevels: settings.MQTT_MAX_TOPIC_LEVELS,
  filters: settings.MQTT_MAX_SUBSCRIPTIONS,
})

/** mqemitter whose `emit` waits until every subscriber had its turn, and for no slow reader: one that is frozen must not hold up every publisher. */
function createEmitter(deliveries: Turns): unknown {
  const emitter = mqemitter({ concurrency: 0, matchEmptyLevels: true })
  const emit = emitter.emit.bind(emitter)
  emitter.emit = (message, done) => {
    emit(message as AedesPublishPacket, () => undefined)
    if (done) deliveries.after(done)
  }
  return emitter
}
