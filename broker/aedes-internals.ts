import type { EventEmitter } from 'node:events'
import type { Client } from 'aedes'

/**
 * The parts of an Aedes client that we rely on and its types leave out (aedes 1.2.0, lib/client.js). Each is covered by a test,
 * so that an upgrade that changes one of them fails there.
 */
export interface AedesClient extends Client {
  subscriptions: Record<string, { qos: number } | undefined>
  duplicates: object
  _parser: EventEmitter
  /** Stops reading from the socket once the chunk in hand is parsed. */
  pause(): void
  resume(): void
  /** Packets parsed and not done: above 0 nothing more is read. */
  _parsingBatch: number
}

/**
 * Aedes drops a message whose broker counter is lower than the last one it wrote to that client, which loses live messages that
 * an asynchronous step let others overtake. Every message here has one way to a client, so nothing has to be remembered.
 */
export const noDuplicates = (brokerId: string): object =>
  Object.defineProperty({}, brokerId, { get: () => 0, set: () => undefined, configurable: true })

/** Aedes answers a SUBSCRIBE with the QoS that was asked for, not with the one that was granted: nobody asks for more than 1. */
export function askForQos1AtMost(client: AedesClient): void {
  client._parser.prependListener('packet', (packet: { cmd: string; subscriptions?: { qos: number }[] }) => {
    for (const subscription of (packet.cmd === 'subscribe' && packet.subscriptions) || []) {
      subscription.qos = Math.min(subscription.qos, 1)
    }
  })
}

/**
 * Reads on, though messages wait for their commit. Aedes would read nothing more before all of a chunk are done, pings and PUBACKs
 * neither; and it does not count those that are done while it is paused, so that it might never read again.
 */
export function readOn(client: AedesClient): void {
  if (client.closed) return
  client._parsingBatch = 0
  client.resume()
}
