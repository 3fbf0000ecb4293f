import type { Logger } from 'pino'
import type { Settings } from '../../schemas/settings.ts'
import type { Login } from '../access.ts'
import { type Assembly, assemble } from '../assembly.ts'
import { type Connection, createConnections } from '../connections.ts'
import { createLimitedLog } from '../limited-log.ts'
import { createSessions, NO_SUBSCRIPTION } from './sessions.ts'

const ANYBODY: Login = {
  kind: 'principal',
  principal: {
    id: '',
    name: 'anybody',
    role: 'viewer',
    tokenId: '',
    sessionId: null,
    grants: null,
    endsAt: Number.POSITIVE_INFINITY,
  },
}

/**
 * The same broker with nothing behind it, for conformance suites of third parties: anybody may publish and subscribe to anything,
 * at any QoS, and sessions keep their messages. No setting of the product leads here.
 */
export function createOpenBroker({ settings, log }: { settings: Settings; log: Logger }): Promise<Assembly> {
  const sessions = createSessions()
  const connections = createConnections({ unacknowledged: settings.MQTT_MAX_UNACKNOWLEDGED })

  return assemble({
    settings,
    log,
    limitedLog: createLimitedLog(log, settings.LOG_LINES_PER_MINUTE),
    connections,
    persistence: sessions,
    policy: {
      identify: async () => ANYBODY,
      async enter(connection) {
        connections.loggedIn(connection)
        connection.client.conn.on('close', () => connections.remove(connection))
      },
      async publish(_connection, { topic }) {
        if (topic.startsWith('$SYS/')) throw new Error('only the broker publishes to $SYS')
      },
      subscribe: (_connection, filter, qos) => refusalOfFilter(filter) ?? { granted: qos as 0 | 1 | 2 },
      forward({ client }: Connection, packet) {
        if (packet.qos > 0 && !client.clean) packet.messageId ||= sessions.idOf(client, packet as never)
        return packet
      },
    },
  })
}

/** Suites want to see a refusal: they have it for filters that end in `nosubscribe`. */
function refusalOfFilter(filter: string): string | undefined {
  if (filter === NO_SUBSCRIPTION) return 'it stands for none'
  return /(^|\/)nosubscribe$/.test(filter) ? 'nobody may subscribe to it' : undefined
}
