import type { Aedes, Client } from 'aedes'
import type { Logger } from 'pino'
import type { AuthenticatedPrincipal } from '../control/access/actor.ts'
import type { Noticed } from '../control/access/security-log.ts'
import type { Control } from '../control/control.ts'
import { createKeyedLock } from '../control/sessions/keyed-lock.ts'
import type { Outlet } from '../control/transport.ts'
import { AppError } from '../schemas/errors.ts'
import type { Settings } from '../schemas/settings.ts'
import { buildTopic } from '../schemas/topics.ts'
import { forbiddenTopic, isText, type Login, mayPublish } from './access.ts'
import { askForQos1AtMost, noDuplicates } from './aedes-internals.ts'
import type { Connection, Connections } from './connections.ts'

/** CONNACK return codes [MQTT-3.2.2.3]. */
type ReturnCode = 2 | 3 | 4 | 5

/** A connection that is refused, with the CONNACK code and the cause for the log. */
export class Refusal extends Error {
  readonly returnCode: ReturnCode

  constructor(returnCode: ReturnCode, message: string) {
    super(message)
    this.returnCode = returnCode
  }
}

interface ConnectPacket {
  clientId: string
  username?: string
  clean?: boolean
  keepalive?: number
  protocolVersion?: number
  will?: { topic: string }
}

export interface AuthenticateDeps {
  settings: Settings
  log: Logger
  control: Control
  connections: Connections
  outlet: Outlet
  broker(): Aedes & { clients: Record<string, Client | undefined> }
}

/** The steps from CONNECT to CONNACK. */
export function createAuthentication(deps: AuthenticateDeps) {
  const { settings, control, connections } = deps
  const root = settings.MQTT_TOPIC_ROOT
  const locks = createKeyedLock()

  /** Before Aedes looks at the CONNECT: notes what it would not tell us later, and corrects what we supervise differently. */
  function preConnect(client: Client, packet: ConnectPacket): void {
    const connection = connections.add(client)
    askForQos1AtMost(connection.client)
    connection.emptyClientId = packet.clientId === '' && !packet.clean
    if ((packet.protocolVersion ?? 4) > 4) {
      deps.log.warn({ address: connection.address }, 'MQTT 5 client refused: choose 3.1.1')
      control.refusals.login(packet.username, 'it speaks MQTT 5; choose 3.1.1')
    }
    const max = settings.MQTT_KEEPALIVE_MAX
    packet.keepalive = Math.min(packet.keepalive || max, max)
    // Presence is the server's: a will on the own status is accepted and ignored.
    if (packet.will?.topic === buildTopic(root, 'clientStatus', { clientId: packet.clientId || '-' }))
      delete packet.will
    connection.willTopic = packet.will?.topic
  }

  async function authenticate(
    client: Client,
    username: string | undefined,
    password: Buffer | undefined,
  ): Promise<void> {
    const connection = connections.of(client)
    const login = await identify(connection, username, password?.toString())
    checkWill(connection, login)
    // One connection per client id at a time from here until it is ready or gone: without it two may live at once.
    connection.release = await locks.acquire(client.id)
    client.conn.once('close', connection.release)
    if (isGone(client)) return connection.release()
    await takeOver(client)
    // Its end would not be seen any more: the session would never end.
    if (isGone(client)) return connection.release()
    connection.login = login
    connection.client.duplicates = noDuplicates(deps.broker().id)
    await enter(connection, login)
    // A key that was rotated, or a client that was disabled, while this login was under way: nobody could close it then.
    await identify(connection, username, password?.toString())
  }

  async function identify(
    connection: Connection,
    username: string | undefined,
    password: string | undefined,
  ): Promise<Login> {
    if (connection.emptyClientId) throw new Refusal(2, 'an empty client id needs clean session [MQTT-3.1.3-8]')
    if (!username || !password) throw new Refusal(4, 'anonymous: give user name and password')
    const { ip } = connection
    const id = connection.client.id
    if (!isText(id) || !isText(username)) throw new Refusal(2, 'client id or user name with U+0000 or no UTF-8')
    if (password.startsWith('sbt_')) {
      const principal = await control.authenticator.principal(password, ip, username)
      if (!principal) throw new Refusal(4, `no such token for principal ${username}`)
      if (await control.authenticator.clientExists(id)) {
        noteForeign({ subject: username, principal: username, address: ip }, id)
        throw new Refusal(5, `client id ${id} belongs to a client`)
      }
      return { kind: 'principal', principal }
    }
    const credential = await control.authenticator.client(username, password, ip)
    if (!credential) throw new Refusal(4, `bad key for client ${username}`)
    if (credential.disabled) throw new Refusal(5, `client ${username} is disabled`)
    const { keyHash, config } = credential
    if (id === username) return { kind: 'client', clientId: username, keyHash, config }
    if (id.startsWith(`${username}~`) && id.length > username.length + 1) {
      return { kind: 'report', clientId: username, keyHash }
    }
    noteForeign({ subject: username, clientId: username, address: ip }, id)
    throw new Refusal(5, `client id ${id} is not ${username}'s`)
  }

  function noteForeign(who: Pick<Noticed, 'subject' | 'principal' | 'clientId' | 'address'>, id: string): void {
    control.securityLog.note({ kind: 'foreign_client_id', ...who, detail: `connected as ${id}` })
  }

  function checkWill({ willTopic, ip }: Connection, login: Login): void {
    if (willTopic === undefined) return
    const allowed = login.kind === 'report' ? 'a report connection has no will' : mayPublish(login, root, willTopic)
    if (typeof allowed !== 'string') return
    const reason = `will on ${willTopic}: ${allowed}`
    control.securityLog.note(forbiddenTopic(login, ip, reason))
    throw new Refusal(5, reason)
  }

  /**
   * [MQTT-3.1.4-2], with the older connection gone completely first: Aedes forgets a client by its id while it closes, and would
   * forget the new one with it.
   */
  async function takeOver(client: Client): Promise<void> {
    const older = deps.broker().clients[client.id]
    if (older) {
      older.close()
      await connections.of(older).unregistered
    }
  }

  async function enter(connection: Connection, login: Login): Promise<void> {
    const { client } = connection
    if (login.kind === 'client') {
      const opening = control.sessions.open(login.clientId, login.config, deps.outlet)
      // From here on the end of the socket is the end of a session, whatever Aedes makes of it.
      connection.ended = new Promise((resolve) => {
        client.conn.once('close', () => void endSession(connection, opening).finally(resolve))
      })
      connection.session = await opening
      connections.loggedIn(connection)
    } else {
      connections.loggedIn(connection)
      const unwatch = login.kind === 'principal' ? endWithToken(connection, login.principal) : () => undefined
      client.conn.once('close', () => {
        unwatch()
        connections.remove(connection)
      })
    }
  }

  function endWithToken({ client }: Connection, principal: AuthenticatedPrincipal): () => void {
    return control.logins.watch(principal, (why) => {
      deps.log.info(
        { principal: principal.name, connection: client.id, reason: why },
        'connection closed by the server',
      )
      client.close()
    })
  }

  async function endSession(connection: Connection, opening: Promise<unknown>): Promise<void> {
    try {
      await opening
      if (connection.session) {
        connection.session.ending = true
        await connection.tail
        await control.sessions.end(connection.session)
      }
    } catch (error) {
      deps.log.warn(
        { clientId: connection.client.id, reason: (error as Error).message },
        'session end is not committed',
      )
    } finally {
      connections.remove(connection)
    }
  }

  return { preConnect, authenticate }
}

/** What the CONNACK says of an error: the database's absence is 3, never 4 or 5 (rule 3). */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error
  if (error instanceof AppError && error.code === 'CLIENT_DISABLED') return new Refusal(5, error.message)
  return new Refusal(3, error instanceof Error ? error.message : String(error))
}

const isGone = (client: Client): boolean => client.closed || client.conn.destroyed
