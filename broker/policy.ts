import type { AedesPublishPacket, PublishPacket } from 'aedes'
import type { Login } from './access.ts'
import type { Connection } from './connections.ts'
import type { ConnectPacket } from './gate/connect-packet.ts'
import type { Refusal } from './refusal.ts'

/** What Aedes makes of a CONNECT, as far as it may still be changed. */
interface ConnectOptions {
  clientId: string
  keepalive?: number
  will?: { topic: string }
}

/** Who may do what, and what it means: the broker is the same whoever decides. */
export interface Policy {
  /** Who sends this CONNECT from this address. Throws a Refusal. */
  identify(connect: ConnectPacket, ip: string): Promise<Login>
  /** It was refused, whoever said so. */
  refused?(refusal: Refusal, username: string | undefined): void
  /** Before anything is made of the CONNECT. */
  connecting?(connection: Connection, options: ConnectOptions): void
  /** Before the older connection with its client id is closed for it. Throws a Refusal. */
  replace?(older: Connection, connection: Connection): void
  /** It is the only connection of its client id from here on; CONNACK follows. Throws a Refusal. */
  enter(connection: Connection, connect: ConnectPacket): Promise<void>
  /** Takes a message in; it is acknowledged when this resolves, and the connection closed when it throws. */
  publish(connection: Connection, packet: PublishPacket): Promise<void>
  /** Whether anybody could get what clients publish without a retain flag; without it, somebody always could. */
  isHeard?(): boolean
  /** The QoS that is granted, or why the subscription is refused. */
  subscribe(connection: Connection, filter: string, qos: number): { granted: 0 | 1 | 2 } | string
  /** Asked before each message that is written to a client; null: it does not get it. */
  forward(connection: Connection, packet: AedesPublishPacket): AedesPublishPacket | null
}
