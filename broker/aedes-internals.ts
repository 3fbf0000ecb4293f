import type { Client } from 'aedes'

/**
 * The parts of an Aedes client that we rely on and its types leave out (aedes 1.2.0, lib/client.js). Each is covered by a test,
 * so that an upgrade that changes one of them fails there.
 */
export interface AedesClient extends Client {
  subscriptions: Record<string, { qos: number } | undefined>
  duplicates: object
  /** Stops reading from the socket once the chunk in hand is parsed. */
  pause(): void
  resume(): void
}

/**
 * Aedes drops a message whose broker counter is lower than the last one it wrote to that client, which loses live messages that
 * an asynchronous step let others overtake. Every message here has one way to a client, so nothing has to be remembered.
 */
export const noDuplicates = (brokerId: string): object =>
  Object.defineProperty({}, brokerId, { get: () => 0, set: () => undefined, configurable: true })
