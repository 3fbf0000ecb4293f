import type { Client } from 'aedes'
import type { Logger } from 'pino'
import type { Certificate } from '../control/certificate.ts'
import type { Tell } from '../control/cluster/hints.ts'
import type { Control } from '../control/control.ts'
import type { Transport } from '../control/transport.ts'
import type { Settings } from '../schemas/settings.ts'
import { buildTopic, parseTopic } from '../schemas/topics.ts'
import { maySubscribe } from './access.ts'
import type { AedesClient } from './aedes-internals.ts'
import { type Assembly, assemble, type BrokerPorts } from './assembly.ts'
import { createAuthentication } from './authenticate.ts'
import { tellBridges } from './bridges.ts'
import { type Connection, createConnections } from './connections.ts'
import { type Copies, createCopies } from './copies.ts'
import { createLimitedLog } from './limited-log.ts'
import { observeConnections } from './observe.ts'
import type { Delivery } from './packet-ids.ts'
import { createPersistence, type RetainedMessages } from './persistence.ts'
import { createReceiver } from './receive.ts'
import { createTransport } from './transport.ts'

export interface Broker {
  transport: Transport
  /** Wires the broker to the domain; nobody can connect yet. */
  attach(control: Control): Promise<void>
  /** With a certificate also over TLS. */
  listen(certificate: Certificate | undefined): Promise<BrokerPorts>
  /** Takes no more connections, closes all, and waits until their sessions have ended. */
  stop(): Promise<void>
}

/** The broker of the control plane: what it decides is in the files beside. */
export function createBroker({ settings, log }: { settings: Settings; log: Logger }): Broker {
  const root = settings.MQTT_TOPIC_ROOT
  const connections = createConnections({ unacknowledged: settings.MQTT_MAX_UNACKNOWLEDGED })
  const limitedLog = createLimitedLog(log, settings.LOG_LINES_PER_MINUTE)
  let scan: NodeJS.Timeout | undefined
  let assembly: Assembly
  let copies: Copies
  const retained: RetainedMessages = new Map()
  let tell: Tell = () => undefined
  const transport = createTransport({
    settings,
    log,
    connections,
    broker: () => assembly.aedes,
    delivered: () => assembly.delivered(),
    copies: () => copies,
    retained,
    tell: (kind, body) => tell(kind, body),
  })

  async function attach(control: Control): Promise<void> {
    observeConnections(control.metrics, connections, settings.MAX_HELD_REPORTS)
    const persistence = createPersistence(
      (client, messageId) => connections.of(client).packetIds.release(messageId ?? 0),
      retained,
    )
    assembly = await assemble({
      settings,
      log,
      limitedLog,
      connections,
      persistence,
      policy: {
        ...createAuthentication({ settings, log, control, connections, outlet: transport }),
        publish: createReceiver({ settings, limitedLog, control }),
        subscribe: (connection, filter, qos) => subscribe(control, connection, filter, qos),
        forward: transport.authorizeForward,
        isHeard: transport.isHeard,
      },
    })
    tell = control.tell
    copies = createCopies({ aedes: assembly.aedes, settings, connections, tell })
    listenToAedes(control)
    tellBridges(assembly.aedes, { root, log, control, connections, retained })
    scan = setInterval(() => {
      closeSilentReaders()
      copies.look()
    }, 1000)
    scan.unref()
  }

  function subscribe(
    { refusals }: Control,
    { login, session }: Connection,
    filter: string,
    qos: number,
  ): { granted: 0 | 1 } | string {
    const verdict = maySubscribe(login, root, filter, qos, session?.config.zones ?? [])
    const isOwn = session && filter === ownCommands(session.clientId)
    if (typeof verdict === 'string' && isOwn && qos === 0 && session.subscription === 'none') {
      session.subscription = 'refused_at_qos_0'
      refusals.commandsTopic(session.clientId, verdict)
    }
    return verdict
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
      const own = ownCommands(session.clientId)
      const granted = own in subscriptions && connection.filters.get(own) === 1
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
    const { aedes } = assembly
    aedes.on('clientReady', (client) => {
      checkSubscription(client)
      if (connections.of(client).login.kind === 'principal') copies.look()
    })
    aedes.on('subscribe', (_subscriptions, client) => checkSubscription(client))
    aedes.on('unsubscribe', (_filters, client) => checkSubscription(client))
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

  return {
    transport,
    attach,
    listen: (certificate) => assembly.listen(certificate),
    stop() {
      clearInterval(scan)
      return assembly.stop()
    },
  }
}
