import type { Client } from 'aedes'
import type { Session } from '../control/sessions/sessions.ts'
import type { Login } from './access.ts'
import type { AedesClient } from './aedes-internals.ts'
import { PacketIds } from './packet-ids.ts'
import { Reading } from './reading.ts'

/** What the broker knows of one MQTT connection, from its login to the end of its session. */
export interface Connection {
  client: AedesClient
  ip: string
  /** With the port, for the log. */
  address: string
  login: Login
  reading: Reading
  /** The filters that were granted to it, and at which QoS. */
  filters: Map<string, 0 | 1 | 2>
  /** Only a client's main connection has one. */
  session: Session | undefined
  packetIds: PacketIds
  /** Everything it has sent so far is committed and answered; hooks of one client run at once, so each one chains itself here. */
  tail: Promise<unknown>
  /** Its status messages so far are committed: a report after them is judged with their journalId. */
  statusCommitted: Promise<unknown>
  /** Messages that wait for their commit. */
  held: number
  /** Resolves when its session is over for control. */
  ended: Promise<void>
  /** Resolves when Aedes has forgotten it. */
  unregistered: Promise<void>
  markUnregistered(): void
  /** Lets the next connection of the same client id be authenticated. Calling it twice does nothing more. */
  release(): void
}

export interface Connections {
  of(client: Client): Connection
  /** The main connection of a client, until its session has ended. */
  main(clientId: string): Connection | undefined
  /** All connections that may speak. */
  all(): Iterable<Connection>
  ofClient(clientId: string): Connection[]
  /** Whether a principal is logged in: who else may listen to what clients say. */
  hasListener(): boolean
  /** `loggedIn` makes it findable. */
  add(client: Client, from: Pick<Connection, 'ip' | 'address' | 'login'>): Connection
  loggedIn(connection: Connection): void
  remove(connection: Connection): void
}

const DONE = Promise.resolve()

export const nothing = (): void => undefined

export function createConnections(limits: { unacknowledged: number }): Connections {
  const byClient = new WeakMap<Client, Connection>()
  const mains = new Map<string, Connection>()
  const loggedIn = new Set<Connection>()
  const listeners = new Set<Connection>()

  return {
    of: (client) => byClient.get(client) as Connection,
    main: (clientId) => mains.get(clientId),
    all: () => loggedIn,
    ofClient: (clientId) =>
      [...loggedIn].filter(({ login }) => login.kind !== 'principal' && login.clientId === clientId),
    hasListener: () => listeners.size > 0,
    add(client, { ip, address, login }) {
      const { promise: unregistered, resolve: markUnregistered } = Promise.withResolvers<void>()
      const connection: Connection = {
        client: client as AedesClient,
        ip,
        address,
        login,
        reading: new Reading(client as AedesClient),
        filters: new Map(),
        session: undefined,
        packetIds: new PacketIds(limits.unacknowledged),
        tail: DONE,
        statusCommitted: DONE,
        held: 0,
        ended: DONE,
        unregistered,
        markUnregistered,
        release: nothing,
      }
      byClient.set(client, connection)
      return connection
    },
    loggedIn(connection) {
      loggedIn.add(connection)
      if (connection.login.kind === 'principal') listeners.add(connection)
      if (connection.login.kind === 'client') mains.set(connection.login.clientId, connection)
    },
    remove(connection) {
      loggedIn.delete(connection)
      listeners.delete(connection)
      const { login } = connection
      if (login.kind === 'client' && mains.get(login.clientId) === connection) mains.delete(login.clientId)
    },
  }
}
