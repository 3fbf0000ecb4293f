import { Aedes, type AedesPublishPacket, type AuthenticateError, type Client, type Subscription } from 'aedes'
import mqemitter from 'mqemitter'
import type { Logger } from 'pino'
import type { Certificate } from '../control/certificate.ts'
import type { Control } from '../control/control.ts'
import type { Transport } from '../control/transport.ts'
import { plainHost, type Settings } from '../schemas/settings.ts'
import { buildTopic, parseTopic } from '../schemas/topics.ts'
import { maySubscribe } from './access.ts'
import type { AedesClient } from './aedes-internals.ts'
import { createAuthentication, refusalOf } from './authenticate.ts'
import { type Connection, createConnections } from './connections.ts'
import { type Listener, listenTcp, listenWebSocket, type Place } from './listeners.ts'
import { observeConnections } from './observe.ts'
import type { Delivery } from './packet-ids.ts'
import { createPersistence } from './persistence.ts'
import { createReceiver } from './receive.ts'
import { createTransport } from './transport.ts'

interface BrokerPorts {
  mqtt: number
  ws: number
  mqtts: number | undefined
  wss: number | undefined
}

export interface Broker {
  transport: Transport
  /** Wires the broker to the domain; nobody can connect yet. */
  attach(control: Control): Promise<void>
  /** With a certificate also over TLS. */
  listen(certificate: Certificate | undefined): Promise<BrokerPorts>
  /** Takes no more connections, closes all, and waits until their sessions have ended. */
  stop(): Promise<void>
}

/** MQTT in and out: Aedes with our hooks. Each hook is a few lines; what it decides is in the files beside. */
export function createBroker({ settings, log }: { settings: Settings; log: Logger }): Broker {
  const root = settings.MQTT_TOPIC_ROOT
  const connections = createConnections()
  const listeners: Listener[] = []
  let scan: NodeJS.Timeout | undefined
  let aedes: Aedes & { clients: Record<string, Client | undefined> }
  const transport = createTransport({ settings, log, connections, broker: () => aedes })

  async function attach(control: Control): Promise<void> {
    const authentication = createAuthentication({
      settings,
      log,
      control,
      connections,
      outlet: transport,
      broker: () => aedes,
    })
    const receive = createReceiver({ settings, log, control })
    observeConnections(control.metrics, connections, settings.MAX_HELD_REPORTS)
    aedes = (await Aedes.createBroker({
      mq: createEmitter(),
      persistence: createPersistence((client, messageId) => connections.of(client).packetIds.release(messageId ?? 0)),
      concurrency: 0,
      connectTimeout: settings.MQTT_CONNECT_TIMEOUT_SECONDS * 1000,
      drainTimeout: settings.MQTT_SLOW_READER_SECONDS * 1000,
      preConnect(client, packet, done) {
        authentication.preConnect(client, packet)
        done(null, true)
      },
      authenticate(client, username, password, done) {
        authentication.authenticate(client, username, password).then(
          () => done(null, true),
          (error) => done(refuse(control, client, username, error), false),
        )
      },
      authorizePublish(client, packet, done) {
        if (!client) return done(new Error('a message of no connection'))
        receive(connections.of(client), packet).then(
          () => done(null),
          (error) => done(error),
        )
      },
      authorizeSubscribe(client, subscription, done) {
        done(null, authorizeSubscribe(control, connections.of(client), subscription))
      },
      authorizeForward: (client, packet) => transport.authorizeForward(client, packet),
    })) as typeof aedes
    listenToAedes(control)
    scan = setInterval(closeSilentReaders, 1000)
    scan.unref()
  }

  function refuse(
    { refusals, metrics }: Control,
    client: Client,
    username: string | undefined,
    error: unknown,
  ): AuthenticateError {
    const refusal = refusalOf(error)
    if (refusal.returnCode !== 3) refusals.login(username, refusal.message)
    metrics.loginRefused(refusal.returnCode)
    const { address } = connections.of(client)
    log.warn(
      { address, client: client.id, username, code: refusal.returnCode, reason: refusal.message },
      'connection refused',
    )
    return refusal
  }

  function authorizeSubscribe(
    { refusals }: Control,
    connection: Connection,
    subscription: Subscription,
  ): Subscription | null {
    const { login, session } = connection
    if (!login) return null
    const verdict = maySubscribe(login, root, subscription.topic, subscription.qos, session?.config.zones ?? [])
    if (typeof verdict === 'string') {
      log.warn({ client: connection.client.id, filter: subscription.topic, reason: verdict }, 'subscription refused')
      if (
        session &&
        subscription.topic === ownCommands(session.clientId) &&
        subscription.qos === 0 &&
        session.subscription === 'none'
      ) {
        session.subscription = 'refused_at_qos_0'
        refusals.commandsTopic(session.clientId, verdict)
      }
      return null
    }
    subscription.qos = verdict.granted
    return subscription
  }

  const ownCommands = (clientId: string): string => buildTopic(root, 'clientCommands', { clientId })

  function listenToAedes(control: Control): void {
    /** Work flows once the own commands topic is granted, and after what the client published before it asked for it. */
    const checkSubscription = (client: Client): void => {
      const connection = connections.of(client)
      const { session } = connection
      if (!session) return
      const { subscriptions } = client as AedesClient
      const filters = Object.keys(subscriptions).map((filter) => parseTopic(root, filter))
      session.zones = new Set(
        filters.flatMap((topic) => (topic?.name === 'zoneCommands' ? [topic.params.zone as string] : [])),
      )
      session.broadcast = filters.some((topic) => topic?.name === 'broadcastCommands')
      const granted = subscriptions[ownCommands(session.clientId)]?.qos === 1
      if (granted === (session.subscription === 'granted')) return
      connection.tail = connection.tail
        .then(async () => {
          session.subscription = granted ? 'granted' : 'none'
          if (granted) await control.dispatch.ready(session)
        })
        .catch((error) => {
          // What earlier sessions left open is brought up once per session: the next one begins anew.
          log.error({ err: error, clientId: session.clientId }, 'session could not be made ready: connection closed')
          client.close()
        })
    }
    aedes.on('clientReady', (client) => {
      connections.of(client).release()
      checkSubscription(client)
    })
    aedes.on('subscribe', (_subscriptions, client) => checkSubscription(client))
    aedes.on('unsubscribe', (_filters, client) => checkSubscription(client))
    aedes.on('clientDisconnect', (client) => connections.of(client).markUnregistered())
    aedes.on('ack', (acknowledged, client) => {
      const connection = connections.of(client)
      const { handover } = (acknowledged ?? { handover: null }) as unknown as Delivery
      if (!connection.session || !handover) return
      const committed = control.dispatch.acknowledged(connection.session, handover)
      // It may fail while the messages before it are still waited for.
      committed.catch(() => undefined)
      connection.tail = connection.tail
        .then(() => committed)
        .catch((error) => log.error({ err: error, clientId: connection.session?.clientId }, 'PUBACK is not committed'))
    })
    aedes.on('clientError', (client, error) => logOnce(connections.of(client), error))
    aedes.on('connectionError', (client, error) =>
      log.debug({ reason: error.message, id: client.id }, 'connection failed before its login'),
    )
    aedes.on('error' as 'closed', ((error: Error) => log.error({ err: error }, 'broker error')) as () => void)
  }

  /** A failing connection fails each of its pending writes: one line is enough. */
  const reported = new WeakSet<Connection>()
  function logOnce(connection: Connection, error: Error): void {
    if (reported.has(connection)) return
    reported.add(connection)
    log.info({ client: connection.client.id, reason: error.message }, 'connection closed')
  }

  /** One pass over the connections instead of a timer per message. */
  function closeSilentReaders(): void {
    const limit = performance.now() - settings.PUBACK_TIMEOUT_SECONDS * 1000
    for (const connection of connections.all()) {
      const oldest = connection.packetIds.oldest()
      if (!oldest || oldest.at > limit || connection.client.closed) continue
      log.warn(
        { client: connection.client.id, seconds: settings.PUBACK_TIMEOUT_SECONDS },
        'no PUBACK in time: connection closed',
      )
      connection.client.close()
    }
  }

  async function endAll(): Promise<void> {
    const ending = [...connections.all()].map((connection) => {
      connection.client.close()
      return connection.ended
    })
    await Promise.all(ending)
  }

  return {
    transport,
    attach,
    async listen(certificate) {
      const host = plainHost(settings, 'MQTT_HOST')
      const add = async (kind: typeof listenTcp, place: Place): Promise<number> => {
        const listener = await kind(aedes, place)
        listeners.push(listener)
        return listener.port
      }
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
      clearInterval(scan)
      const closed = listeners.map((listener) => listener.close())
      await endAll()
      await new Promise<void>((resolve) => aedes.close(resolve))
      // Aedes leaves a connection open whose login was under way; it may even have logged in meanwhile.
      for (const listener of listeners) listener.terminate()
      await endAll()
      await Promise.all(closed)
    },
  }
}

/** mqemitter whose `emit` does not wait for slow readers: one frozen subscriber must not hold up every publisher. */
function createEmitter(): unknown {
  const emitter = mqemitter({ concurrency: 0, matchEmptyLevels: true })
  const emit = emitter.emit.bind(emitter)
  emitter.emit = (message, done) => {
    emit(message as AedesPublishPacket, () => undefined)
    if (done) setImmediate(done)
  }
  return emitter
}
