import { Readable } from 'node:stream'
import type { AedesPublishPacket, Client, Subscription } from 'aedes'
import type { ForwardedPacket } from '../aedes-internals.ts'
import { createPersistence, keepable, oncePerPacket, type Store } from '../persistence.ts'
import { highestQos } from '../topic-filter.ts'

type Id = Pick<Client, 'id'>
type Message = AedesPublishPacket & { brokerCounter: number }

/** A message that a client has not acknowledged, or the PUBREL of one that it has received [MQTT-4.3.3-1]. */
interface Outgoing {
  messageId: number
  message: Message
  sent: boolean
  released: boolean
}

interface Session {
  /** Filters and the QoS they were granted. */
  subscriptions: Map<string, 0 | 1 | 2>
  /** By packet identifier, in the order of their messages, and by the counter that Aedes gave the message. */
  outgoing: Map<number, Outgoing>
  byCounter: Map<number, Outgoing>
  lastId: number
}

/** Stands for a session that has no subscription: Aedes takes a session without any for none [MQTT-3.2.2-2]. */
export const NO_SUBSCRIPTION = '$no-subscription'

/** Bounds for a broker that anybody may fill: the oldest goes. */
const MAX_SESSIONS = 10_000
const MAX_OUTGOING = 10_000
const MAX_RETAINED = 10_000

const MAX_ID = 65_535

/** What a general broker keeps and the control plane's does not: messages for sessions that are away or do not acknowledge. */
export function createSessions() {
  const base = createPersistence(() => undefined)
  const sessions = new Map<string, Session>()

  function sessionOf({ id }: Id): Session {
    const known = sessions.get(id)
    if (known) return known
    if (sessions.size >= MAX_SESSIONS) forget({ id: sessions.keys().next().value as string })
    const session = { subscriptions: new Map(), outgoing: new Map(), byCounter: new Map(), lastId: 0 }
    sessions.set(id, session)
    return session
  }

  function forget(client: Id): void {
    sessions.delete(client.id)
    void base.cleanIncoming(client)
  }

  /** [MQTT-2.3.1-4] */
  function freeId(session: Session): number {
    do session.lastId = (session.lastId % MAX_ID) + 1
    while (session.outgoing.has(session.lastId))
    return session.lastId
  }

  function enqueue(session: Session, message: Message, qos: number): void {
    const [oldest] = session.outgoing.values()
    if (oldest && session.outgoing.size >= MAX_OUTGOING) remove(session, oldest)
    const outgoing = {
      messageId: freeId(session),
      // [MQTT-3.3.1-9]: its subscription was there before it.
      message: { ...keepable(message), qos: Math.min(message.qos, qos) as 0 | 1 | 2, retain: false },
      sent: false,
      released: false,
    }
    session.outgoing.set(outgoing.messageId, outgoing)
    session.byCounter.set(message.brokerCounter, outgoing)
  }

  function remove(session: Session, { messageId, message }: Outgoing): void {
    session.outgoing.delete(messageId)
    session.byCounter.delete(message.brokerCounter)
  }

  /** As Aedes writes it again: with its number [MQTT-4.4.0-1], and DUP if it was sent before [MQTT-3.3.1-1]. */
  const packetOf = ({ messageId, message, sent, released }: Outgoing) =>
    released ? { cmd: 'pubrel', messageId } : { ...message, messageId, dup: sent }

  const addSubscriptions: Store<void> = async (client, subscriptions) => {
    const session = sessionOf(client)
    for (const { topic, qos } of subscriptions) session.subscriptions.set(topic, qos)
  }

  return Object.assign(base, {
    addSubscriptions: oncePerPacket(addSubscriptions),

    async removeSubscriptions(client: Id, filters: string[]) {
      for (const filter of filters) sessions.get(client.id)?.subscriptions.delete(filter)
    },

    async subscriptionsByClient(client: Id): Promise<Subscription[]> {
      const known = sessions.has(client.id)
      const session = sessionOf(client)
      if (known && session.subscriptions.size === 0) return [{ topic: NO_SUBSCRIPTION, qos: 0 }]
      return [...session.subscriptions].map(([topic, qos]) => ({ topic, qos }))
    },

    async cleanSubscriptions(client: Id) {
      forget(client)
    },

    /** The persistent sessions that get a message above QoS 0, each once. */
    async subscriptionsByTopic(topic: string) {
      const found: { clientId: string; topic: string; qos: number }[] = []
      for (const [clientId, { subscriptions }] of sessions) {
        const qos = highestQos(subscriptions, topic) ?? 0
        if (qos > 0) found.push({ clientId, topic, qos })
      }
      return found
    },

    async outgoingEnqueue({ clientId }: { clientId: string }, message: Message) {
      enqueue(sessionOf({ id: clientId }), message, message.qos)
    },

    async outgoingEnqueueCombi(found: { clientId: string; qos: number }[], message: Message) {
      for (const { clientId, qos } of found) enqueue(sessionOf({ id: clientId }), message, qos)
    },

    /** Before a PUBLISH is written, or the PUBREL that answers a PUBREC. */
    async outgoingUpdate(client: Id, packet: { cmd: string; messageId: number }) {
      const outgoing = sessionOf(client).outgoing.get(packet.messageId)
      if (!outgoing) return
      if (packet.cmd === 'pubrel') outgoing.released = true
      else outgoing.sent = true
    },

    async outgoingClearMessageId(client: Id, { messageId }: { messageId: number }) {
      const session = sessionOf(client)
      const outgoing = session.outgoing.get(messageId)
      if (outgoing) remove(session, outgoing)
      return outgoing?.message
    },

    outgoingStream: (client: Id) =>
      Readable.from([...(sessions.get(client.id)?.outgoing.values() ?? [])].map(packetOf)),

    async storeRetained(packet: AedesPublishPacket) {
      if (packet.payload.length === 0) base.retained.delete(packet.topic)
      else {
        if (base.retained.size >= MAX_RETAINED) base.retained.delete(base.retained.keys().next().value as string)
        base.retained.set(packet.topic, keepable(packet))
      }
    },

    /** The number of a message that is about to be written to a session that may be continued. */
    idOf(client: Id, { brokerCounter, brokerId }: Pick<ForwardedPacket, 'brokerCounter' | 'brokerId'>): number {
      const session = sessionOf(client)
      const waiting = brokerId === null ? undefined : session.byCounter.get(brokerCounter)
      return waiting?.messageId ?? freeId(session)
    },
  })
}
