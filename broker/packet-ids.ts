/** What a PUBACK acknowledges: an attempt of a command, or anything else (cancel, config, reply). */
export interface Delivery {
  handover: { commandId: string; attempt: number } | null
  /** performance.now() at the write. */
  at: number
}

const MAX = 65_535

/** The packet identifiers in use towards one client [MQTT-2.3.1-4]: a PUBACK means the message that its number was given to. */
export class PacketIds {
  readonly #most: number
  readonly #inUse = new Map<number, Delivery>()
  #last = 0

  constructor(most: number) {
    this.#most = most
  }

  /** Undefined when as many are in use as may be. */
  take(delivery: Delivery): number | undefined {
    if (this.#inUse.size >= this.#most) return undefined
    do this.#last = (this.#last % MAX) + 1
    while (this.#inUse.has(this.#last))
    this.#inUse.set(this.#last, delivery)
    return this.#last
  }

  /** Undefined for a number that is not in use. */
  release(id: number): Delivery | undefined {
    const delivery = this.#inUse.get(id)
    this.#inUse.delete(id)
    return delivery
  }

  oldest(): Delivery | undefined {
    return this.#inUse.values().next().value
  }
}
