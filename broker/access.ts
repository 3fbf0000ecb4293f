import type { AuthenticatedPrincipal } from '../control/access/actor.ts'
import type { Noticed } from '../control/access/security-log.ts'
import type { ClientConfig } from '../schemas/clients.ts'
import { Id } from '../schemas/ids.ts'
import { COMMAND_TOPICS, type ParsedTopic, parseTopic } from '../schemas/topics.ts'

/** Who a connection belongs to. A report connection (`{clientId}~{suffix}`) only publishes reports and events. */
export type Login =
  | { kind: 'client'; clientId: string; keyHash: Buffer; config: ClientConfig }
  | { kind: 'report'; clientId: string; keyHash: Buffer }
  | { kind: 'principal'; principal: AuthenticatedPrincipal }

/** Who it is, in a few letters. */
export const subjectOf = (login: Login): string => (login.kind === 'principal' ? login.principal.name : login.clientId)

/** The topic if this login may publish to it, else why not (contract, 3). */
export function mayPublish(login: Login, root: string, topic: string): ParsedTopic | string {
  if (login.kind === 'principal') return 'a principal publishes nothing over MQTT: commands are sent over HTTP'
  const parsed = parseTopic(root, topic)
  if (!parsed) return 'it is no topic of Signalbox'
  if (parsed.spec.direction !== 'from-client') return 'only the server publishes to it'
  if (parsed.params.clientId !== login.clientId) return "it is another client's"
  if (login.kind === 'report' && parsed.name === 'clientStatus') return 'a report connection has no status of its own'
  if (parsed.params.type !== undefined && !Id.safeParse(parsed.params.type).success) return 'its event type is no id'
  return parsed
}

/** A publish that was refused, as a security event. */
export function forbiddenTopic(login: Login, address: string, detail: string): Noticed {
  const kind = 'forbidden_topic'
  if (login.kind !== 'principal') return { kind, subject: login.clientId, clientId: login.clientId, address, detail }
  return { kind, subject: login.principal.name, principal: login.principal.name, address, detail }
}

/** The QoS that is granted, or why the subscription is refused. `zones`: those that the client is in. */
export function maySubscribe(
  login: Login,
  root: string,
  filter: string,
  qos: number,
  zones: string[],
): { granted: 0 | 1 } | string {
  const granted = qos === 0 ? 0 : 1
  if (login.kind === 'report') return 'a report connection subscribes to nothing'
  if (login.kind === 'principal') {
    return filter.startsWith(`${root}/`) ? { granted } : `only filters below ${root}/ are allowed`
  }
  const parsed = parseTopic(root, filter)
  if (parsed?.spec.direction !== 'to-client') return 'a client subscribes only to the exact topics marked to it'
  const { clientId, zone } = parsed.params
  if (clientId !== undefined && clientId !== login.clientId) return "it is another client's"
  if (zone !== undefined && !zones.includes(zone)) return `the client is not in zone ${zone}`
  if (COMMAND_TOPICS.includes(parsed.name) && qos === 0)
    return 'a commands topic asked for at QoS 0: subscribe at QoS 1'
  return { granted }
}
