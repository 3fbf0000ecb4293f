import type { ClientConfig } from '../schemas/clients.ts'
import type { Target } from '../schemas/commands.ts'
import type { Json } from '../schemas/json.ts'
import type { CancelMessage, CommandMessage, ErrorReply } from '../schemas/messages.ts'

/** Which session of a client: an older one is never written to. */
export interface SessionRef {
  clientId: string
  epoch: number
}

/** How a session's client is written to: over MQTT, or a stream of server-sent events. */
export interface Outlet {
  /**
   * Writes a message to the client. Answers whether it went to the socket: false means that the client cannot have it.
   * `handover` names the attempt that the PUBACK will acknowledge; null for a cancel.
   */
  forward(
    session: SessionRef,
    message: CommandMessage | CancelMessage,
    handover: { commandId: string; attempt: number } | null,
  ): Promise<boolean>
  /** Ends the session's connection; resolves once `sessions.end` has been called for it and is through. */
  close(session: SessionRef, why: string): Promise<void>
}

/** MQTT, as far as control knows it. */
export interface Transport {
  /**
   * One publish on the zone's or the broadcast topic, written to these sessions only. Answers the clients it was written to;
   * the others cannot have it.
   */
  forwardShared(target: Target, sessions: SessionRef[], message: CommandMessage): Promise<Set<string>>
  /** To the client's connection, on whichever node that is. */
  reply(clientId: string, reply: ErrorReply): Promise<void>
  /** What another node has published: for those who listen here. */
  publishCopy(topic: string, payload: string): Promise<void>
  replyHere(clientId: string, reply: ErrorReply): Promise<void>
  /** On another node somebody listens to everybody's traffic, or nobody any more. */
  listensElsewhere(node: string, wanted: boolean): void
  /** Retained: what a technician or a client that subscribes later is told. */
  retainStatus(clientId: string, status: Record<string, Json>): Promise<void>
  retainConfig(clientId: string, config: ClientConfig): Promise<void>
  /** What is retained of a client now. */
  retained(clientId: string): { status: unknown; config: unknown }
  /** Of whom anything is retained. */
  retainedClients(): Set<string>
  /** Nothing is retained of a client any more. */
  forget(clientId: string): Promise<void>
  /**
   * Closes every connection of the client, its report connections too, and says why in the log. With the hash of a key, only
   * those that logged in with it.
   */
  disconnect(clientId: string, why: string, keyHash?: Buffer): void
}
