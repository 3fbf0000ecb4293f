/** What a PUBACK acknowledges: an attempt of a command, or anything else (cancel, config, reply). */
export interface Delivery {
  handover: { commandId: string; attempt: number } | null
  /** performance.now() at the write. */
  at: number
}

/** The packet identifiers in use towards one client [MQTT-2.3.1-4]: a PUBACK means the message that its number was given to. */
export interface PacketIds {
  /** Undefined when as many are in use as may be. */
  take(delivery: Delivery): number | undefined
  /** Undefined for a number that is not in use. */
  release(id: number): Delivery | undefined
  oldest(): Delivery | undefined
}

const MAX = 65_535

export function createPacketIds(most: number): PacketIds {
  const inUse = new Map<number, Delivery>()
  let last = 0
  return {
    take(delivery) {
      if (inUse.size >= most) return undefined
      do last = (last % MAX) + 1
      while (inUse.has(last))
      inUse.set(last, delivery)
      return last
    },
    release(id) {
      const delivery = inUse.get(id)
      inUse.delete(id)
      return delivery
    },
    oldest: () => inUse.values().next().value,
  }
}
