import type { Client } from 'aedes'
import { plainAddress } from '../control/access/actor.ts'
import type { Session } from '../control/sessions/sessions.ts'
import type { Login } from './access.ts'
import type { AedesClient } from './aedes-internals.ts'
import { createPacketIds, type PacketIds } from './packet-ids.ts'

/** What the broker knows of one MQTT connection, from its CONNECT to the end of its session. */
export interface Connection {
  client: AedesClient
  /** With the port, for the log. */
  address: string
  ip: string
  /** Set in `preConnect`. */
  willTopic: string | undefined
  emptyClientId: boolean
  /** Set once it is authenticated. */
  login: Login | undefined
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
  /** Lets the next connection of the same client id be authenticated. */
  release(): void
}

export interface Connections {
  of(client: Client): Connection
  /** The main connection of a client, until its session has ended. */
  main(clientId: string): Connection | undefined
  /** All authenticated connections. */
  all(): Iterable<Connection>
  ofClient(clientId: string): Connection[]
  /** From the CONNECT on; `loggedIn` makes it findable. */
  add(client: Client): Connection
  loggedIn(connection: Connection): void
  remove(connection: Connection): void
}

export function createConnections(): Connections {
  const byClient = new WeakMap<Client, Connection>()
  const mains = new Map<string, Connection>()
  const authenticated = new Set<Connection>()

  return {
    of: (client) => byClient.get(client) as Connection,
    main: (clientId) => mains.get(clientId),
    all: () => authenticated,
    ofClient: (clientId) =>
      [...authenticated].filter(({ login }) => login && login.kind !== 'principal' && login.clientId === clientId),
    add(client) {
      const { promise: unregistered, resolve: markUnregistered } = Promise.withResolvers<void>()
      const connection: Connection = {
        client: client as AedesClient,
        ...remoteAddress(client),
        willTopic: undefined,
        emptyClientId: false,
        login: undefined,
        session: undefined,
        packetIds: createPacketIds(),
        tail: Promise.resolve(),
        statusCommitted: Promise.resolve(),
        held: 0,
        ended: Promise.resolve(),
        unregistered,
        markUnregistered,
        release: () => undefined,
      }
      byClient.set(client, connection)
      return connection
    },
    loggedIn(connection) {
      authenticated.add(connection)
      if (connection.login?.kind === 'client') mains.set(connection.login.clientId, connection)
    },
    remove(connection) {
      authenticated.delete(connection)
      const { login } = connection
      if (login?.kind === 'client' && mains.get(login.clientId) === connection) mains.delete(login.clientId)
    },
  }
}

function remoteAddress(client: Client): { address: string; ip: string } {
  const socket = (client.req?.socket ?? client.conn) as { remoteAddress?: string; remotePort?: number }
  const ip = plainAddress(socket.remoteAddress)
  return { address: `${ip}:${socket.remotePort ?? '?'}`, ip }
}
