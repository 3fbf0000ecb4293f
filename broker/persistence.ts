import { Readable } from 'node:stream'
import type { AedesPublishPacket, Client } from 'aedes'
import memory from 'aedes-persistence'
import { hasWildcard, topicMatches } from './topic-filter.ts'

/**
 * What Aedes keeps, in memory: retained messages and the subscriptions of persistent sessions. It queues nothing for anybody:
 * what a client gets when it comes back is the ledger's to say. `acknowledged` answers what a PUBACK was for.
 */
export function createPersistence(acknowledged: (client: Client, messageId: number | undefined) => unknown) {
  const retained = new Map<string, AedesPublishPacket>()

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

  return Object.assign((memory as unknown as () => object)(), {
    storeRetained: async (packet: AedesPublishPacket) => {
      // [MQTT-3.3.1-10]: an empty payload removes what was retained.
      if (packet.payload.length === 0) retained.delete(packet.topic)
      else retained.set(packet.topic, { ...packet })
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
