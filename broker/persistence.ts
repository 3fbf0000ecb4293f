import { Readable } from 'node:stream'
import type { AedesPublishPacket, Client, Subscription } from 'aedes'
import memory from 'aedes-persistence'
import { unpooled } from '../schemas/unpooled.ts'
import { hasWildcard, topicMatches } from './topic-filter.ts'

/** The QoS of a subscription that is refused [MQTT-3.9.3-2]: it is none, and is not kept. */
export const REFUSED = 0x80

export type Store<Result> = (client: Pick<Client, 'id'>, subscriptions: Subscription[]) => Promise<Result>

/** What of it is used as it is. */
interface Memory {
  addSubscriptions: Store<unknown>
  cleanIncoming(client: Pick<Client, 'id'>): Promise<void>
}

/** By their topics. */
export type RetainedMessages = Map<string, AedesPublishPacket>

/**
 * What Aedes keeps, in memory: retained messages and the subscriptions of persistent sessions. It queues nothing for anybody:
 * what a client gets when it comes back is the ledger's to say. `acknowledged` answers what a PUBACK was for.
 */
export function createPersistence(
  acknowledged: (client: Client, messageId: number | undefined) => unknown,
  retained: RetainedMessages = new Map(),
) {
  /** A device subscribes to exact topics: looking those up keeps a connect storm from reading every retained message each time. */
  function* find(filters: string[]): Generator<AedesPublishPacket> {
    for (const filter of filters) {
      if (hasWildcard(filter)) {
        for (const [topic, packet] of retained) if (topicMatches(filter, topic)) yield packet
      } else {
        const packet = retained.get(filter)
        if (packet) yield packet
      }
    }
  }

  const inMemory = (memory as unknown as () => Memory)()
  return Object.assign(inMemory, {
    retained,
    addSubscriptions: oncePerPacket(inMemory.addSubscriptions.bind(inMemory)),
    storeRetained: async (packet: AedesPublishPacket) => {
      // [MQTT-3.3.1-10]: an empty payload removes what was retained.
      if (packet.payload.length === 0) retained.delete(packet.topic)
      else retained.set(packet.topic, keepable(packet))
    },
    createRetainedStream: (filter: string) => Readable.from(find([filter])),
    createRetainedStreamCombi: (filters: string[]) => Readable.from(find(filters)),
    subscriptionsByTopic: async () => [],
    outgoingEnqueue: async () => undefined,
    outgoingEnqueueCombi: async () => undefined,
    outgoingUpdate: async () => undefined,
    outgoingClearMessageId: async (client: Client, packet: { messageId?: number }) =>
      acknowledged(client, packet.messageId),
  })
}

/** A message by itself: its payload is a part of whatever came with it, all of which would be kept. */
export const keepable = <Packet extends AedesPublishPacket>(packet: Packet): Packet => ({
  ...packet,
  payload: unpooled(packet.payload as Buffer),
})

/**
 * Aedes stores all of a SUBSCRIBE for each of its filters that is granted, those that are refused among them: this stores the
 * granted ones, once all have been judged.
 */
export function oncePerPacket<Result>(store: Store<Result>): Store<Result> {
  const stored = new WeakMap<Subscription[], Promise<Result>>()
  return (client, all) => {
    const known = stored.get(all)
    if (known) return known
    const isGranted = ({ qos }: { qos: number }): boolean => qos !== REFUSED
    const storing = Promise.resolve().then(() => store(client, all.filter(isGranted)))
    stored.set(all, storing)
    return storing
  }
}
