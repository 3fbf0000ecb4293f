import type { EventEmitter } from 'node:events'
import type { Aedes, AedesPublishPacket, Client, PublishPacket } from 'aedes'
import type { Turns } from '../control/turns.ts'

/**
 * The parts of an Aedes client that we rely on and its types leave out (aedes 1.2.0, lib/client.js). Each is covered by a test,
 * so that an upgrade that changes one of them fails there.
 */
export interface AedesClient extends Client {
  subscriptions: Record<string, object | undefined>
  conn: Client['conn'] & { _readableState: { ended: boolean } }
  duplicates: object
  /** Its settings are the CONNECT that it has parsed. */
  _parser: EventEmitter & {
    parse(chunk: Buffer): unknown
    settings: { protocolVersion?: number; bridgeMode?: boolean }
  }
  /** Stops reading from the socket once the chunk in hand is parsed. */
  pause(): void
  resume(): void
  /** Packets parsed and not done: above 0 nothing more is read. */
  _parsingBatch: number
  /** Writes a message to the client, at QoS 0 or above. */
  deliver0: Deliver
  deliverQoS: Deliver
}
type Deliver = (packet: ForwardedPacket, done: () => void) => void

/** A message on its way to a client. The copies of one publish have the same counter; a retained one has no broker. */
export type ForwardedPacket = Omit<AedesPublishPacket, 'brokerId' | 'brokerCounter'> & {
  brokerId: string | null
  brokerCounter: number
}

/**
 * Aedes drops a message whose broker counter is lower than the last one it wrote to that client, which loses live messages that
 * an asynchronous step let others overtake. Every message here has one way to a client, so nothing has to be remembered, and all
 * clients of a broker can have the same.
 */
export const noDuplicates = (brokerId: string): object =>
  Object.defineProperty({}, brokerId, { get: () => 0, set: () => undefined, configurable: true })

interface ParsedPacket {
  cmd: string
  subscriptions?: { topic: string; qos: number }[]
}

/**
 * Aedes takes equal filters of one SUBSCRIBE for one, and answers too few codes [MQTT-3.8.4-4] [MQTT-3.8.4-5]. It compares them
 * by what it reads first, so that is made unlike.
 */
export function answerEveryFilter(client: AedesClient): void {
  client._parser.prependListener('packet', makeEqualUnlike)
}

function makeEqualUnlike({ cmd, subscriptions = [] }: ParsedPacket): void {
  if (cmd !== 'subscribe' || subscriptions.length < 2) return
  const seen = new Set<string>()
  for (const subscription of subscriptions) {
    if (seen.has(subscription.topic)) makeUnlike(subscription)
    else seen.add(subscription.topic)
  }
}

function makeUnlike(subscription: { topic: string }): void {
  const { topic } = subscription
  let wasRead = false
  const get = (): unknown => {
    if (wasRead) return topic
    wasRead = true
    return Symbol(topic)
  }
  Object.defineProperty(subscription, 'topic', { get, enumerable: true })
}

/** Aedes answers a SUBSCRIBE with the QoS that was asked for, not with the one that was granted: nobody asks for more than 1. */
export function askForQos1AtMost(client: AedesClient): void {
  client._parser.prependListener('packet', askForLess)
}

function askForLess({ cmd, subscriptions = [] }: ParsedPacket): void {
  if (cmd !== 'subscribe') return
  for (const subscription of subscriptions) subscription.qos = Math.min(subscription.qos, 1)
}

/**
 * Everything that Aedes reads goes through `filter` first, which passes on what the parser may see: the parser itself has no
 * limits. Answers the parser.
 */
export function filterInput(client: AedesClient, filter: (chunk: Buffer) => void): (packets: Buffer) => void {
  const parser = client._parser
  const parse = parser.parse.bind(parser)
  parser.parse = filter
  return parse
}

/** Whether what was just read was all, and the other side sends no more. */
export const isLast = ({ conn }: AedesClient): boolean => conn.readableLength === 0 && conn._readableState.ended

/** Gives Aedes the CONNECT as if it had just read it: it handles a first packet only when nothing else is under way. */
export function begin(client: AedesClient, parse: (packets: Buffer) => void, connect: Buffer): void {
  client._parsingBatch = 0
  parse(connect)
}

/** Once it is logged in: the parser would keep its CONNECT, the key among it, for as long as the connection lives. */
export function forgetConnect({ _parser }: AedesClient): void {
  const { protocolVersion, bridgeMode } = _parser.settings
  _parser.settings = { protocolVersion, bridgeMode }
}

/**
 * Each message once, at the highest QoS that one of the matching subscriptions was granted [MQTT-3.3.5-1] [MQTT-3.8.4-6]; without
 * one not at all. Aedes itself compares with a subscription of just that topic only, so it is told 2 for all of them.
 */
export function deliverOnce(
  client: AedesClient,
  turns: Turns,
  grantedQos: (topic: string) => number | undefined,
  retained: ReadonlyMap<string, AedesPublishPacket>,
): void {
  const { deliver0, deliverQoS } = client
  let last: number | undefined
  const deliver: Deliver = (packet, done) => {
    // A retained message is read well before its turn. What took its place meanwhile has its own way here, and may be there already.
    if (packet.brokerId === null && packet.retain && retained.get(packet.topic)?.payload !== packet.payload)
      return void setImmediate(done)
    // The copies for overlapping subscriptions come right behind each other.
    if (packet.brokerId !== null && packet.brokerCounter === last) return void setImmediate(done)
    if (packet.brokerId !== null) last = packet.brokerCounter
    const granted = grantedQos(packet.topic)
    if (granted === undefined) return void setImmediate(done)
    packet.qos = Math.min(packet.qos, granted) as 0 | 1 | 2
    const write = packet.qos === 0 ? deliver0 : deliverQoS
    turns.run(() => write(packet, done))
  }
  client.deliver0 = deliver
  client.deliverQoS = deliver
}

/**
 * A client's message is acknowledged when it comes here. To look for whom it is, where it can be for nobody, is most of what Aedes
 * does with it.
 */
export function publishWhatIsHeard(aedes: Aedes, isHeard: () => boolean): void {
  const publish = aedes.publish.bind(aedes) as Publish
  const publishHeard: Publish = (packet, client, done) => {
    if (typeof client !== 'object' || packet.retain || isHeard()) publish(packet, client, done)
    else setImmediate(done as () => void)
  }
  aedes.publish = publishHeard as Aedes['publish']
}
type Publish = (
  packet: PublishPacket,
  client?: Client | ((error?: Error) => void),
  done?: (error?: Error) => void,
) => void

/**
 * Reads on, though messages wait for their commit. Aedes would read nothing more before all of a chunk are done, pings and PUBACKs
 * neither; and it does not count those that are done while it is paused, so that it might never read again.
 */
export function readOn(client: AedesClient): void {
  if (client.closed) return
  client._parsingBatch = 0
  client.resume()
}
