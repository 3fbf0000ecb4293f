import type { Logger } from 'pino'
import type { AuthenticatedPrincipal } from '../control/access/actor.ts'
import type { Noticed } from '../control/access/security-log.ts'
import type { Control } from '../control/control.ts'
import type { Outlet } from '../control/transport.ts'
import type { Settings } from '../schemas/settings.ts'
import { buildTopic } from '../schemas/topics.ts'
import { forbiddenTopic, type Login, mayPublish, subjectOf } from './access.ts'
import { askForQos1AtMost } from './aedes-internals.ts'
import type { Connection, Connections } from './connections.ts'
import type { ConnectPacket } from './gate/connect-packet.ts'
import type { Policy } from './policy.ts'
import { Refusal } from './refusal.ts'

export interface AuthenticateDeps {
  settings: Settings
  log: Logger
  control: Control
  connections: Connections
  outlet: Outlet
}

/** Who connects, and how a login becomes a session. */
export function createAuthentication(
  deps: AuthenticateDeps,
): Pick<Policy, 'identify' | 'refused' | 'connecting' | 'replace' | 'enter'> {
  const { settings, control, connections } = deps
  const root = settings.MQTT_TOPIC_ROOT

  async function identify(connect: ConnectPacket, ip: string): Promise<Login> {
    const login = await recognise(connect, ip)
    checkWill(login, connect, ip)
    return login
  }

  async function recognise({ clientId: id, username, password }: ConnectPacket, ip: string): Promise<Login> {
    if (!username || !password) throw new Refusal(4, 'anonymous: give user name and password')
    if (password.startsWith('sbt_')) {
      const principal = await control.authenticator.principal(password, ip, username)
      if (!principal) throw new Refusal(4, `no such token for principal ${username}`)
      // With what may stand behind it: a report connection is the client's as well.
      const [owner] = id.split('~', 1) as [string]
      if (await control.authenticator.clientExists(owner)) {
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

  /** Presence is the server's: a will on the own status is accepted and ignored. */
  const isOwnStatus = (clientId: string, topic: string): boolean =>
    topic === buildTopic(root, 'clientStatus', { clientId: clientId || '-' })

  function checkWill(login: Login, { clientId, willTopic }: ConnectPacket, ip: string): void {
    if (willTopic === undefined || isOwnStatus(clientId, willTopic)) return
    const allowed = login.kind === 'report' ? 'a report connection has no will' : mayPublish(login, root, willTopic)
    if (typeof allowed !== 'string') return
    const reason = `will on ${willTopic}: ${allowed}`
    control.securityLog.note(forbiddenTopic(login, ip, reason))
    throw new Refusal(5, reason)
  }

  /** A principal takes the place of nobody but itself; a client's ids are its own, whoever has come with one of them before. */
  function replace(older: Connection, { client, login, ip }: Connection): void {
    if (login.kind !== 'principal') return
    const { name, id } = login.principal
    if (older.login.kind === 'principal' && older.login.principal.id === id) return
    noteForeign({ subject: name, principal: name, address: ip }, client.id)
    throw new Refusal(5, `client id ${client.id} is in use by ${subjectOf(older.login)}`)
  }

  async function enter(connection: Connection, connect: ConnectPacket): Promise<void> {
    const { client, login } = connection
    if (login.kind === 'client') {
      const opening = control.sessions.open(login.clientId, login.config, deps.outlet)
      // From here on the end of the socket is the end of a session, whatever Aedes makes of it.
      connection.ended = new Promise((resolve) => {
        client.conn.on('close', () => void endSession(connection, opening).finally(resolve))
      })
      connection.session = await opening
      connections.loggedIn(connection)
    } else {
      connections.loggedIn(connection)
      const unwatch = login.kind === 'principal' ? endWithToken(connection, login.principal) : () => undefined
      client.conn.on('close', () => {
        unwatch()
        connections.remove(connection)
      })
    }
    // A key that was rotated, or a client that was disabled, while this login was under way: nobody could close it then.
    await identify(connect, connection.ip)
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

  return {
    identify,
    replace,
    enter,
    refused({ returnCode, message }, username) {
      if (returnCode !== 3) control.refusals.login(username, message)
      control.metrics.loginRefused(returnCode)
    },
    connecting({ client }, options) {
      askForQos1AtMost(client)
      const max = settings.MQTT_KEEPALIVE_MAX
      options.keepalive = Math.min(options.keepalive || max, max)
      if (options.will && isOwnStatus(options.clientId, options.will.topic)) delete options.will
    },
  }
}
