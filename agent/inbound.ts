import type { z } from 'zod'
import { ClientConfig } from '../schemas/clients.ts'
import { type CancelMessage, type CommandMessage, DeviceBound, ErrorReply } from '../schemas/messages.ts'
import { parseTopic } from '../schemas/topics.ts'

export type Inbound =
  | { kind: 'command'; message: CommandMessage }
  | { kind: 'cancel'; message: CancelMessage }
  | { kind: 'config'; message: ClientConfig }
  | { kind: 'reply'; message: z.infer<typeof ErrorReply> }
  | { kind: 'malformed'; reason: string }

/** What a message from the server says. Never throws: what cannot be understood is `malformed`, with the reason. */
export function parseInbound(root: string, topic: string, payload: Buffer): Inbound {
  switch (parseTopic(root, topic)?.name) {
    case 'clientCommands':
    case 'zoneCommands':
    case 'broadcastCommands':
      return parse(DeviceBound, payload, (message) =>
        message.type === 'command' ? { kind: 'command', message } : { kind: 'cancel', message },
      )
    case 'clientConfig':
      return parse(ClientConfig, payload, (message) => ({ kind: 'config', message }))
    case 'clientReplies':
      return parse(ErrorReply, payload, (message) => ({ kind: 'reply', message }))
    default:
      return { kind: 'malformed', reason: 'not a topic of a client' }
  }
}

function parse<T>(schema: z.ZodType<T>, payload: Buffer, as: (message: T) => Inbound): Inbound {
  let body: unknown
  try {
    body = JSON.parse(payload.toString('utf8'))
  } catch {
    return { kind: 'malformed', reason: 'not JSON' }
  }
  const { data, error } = schema.safeParse(body)
  return error ? { kind: 'malformed', reason: error.message } : as(data as T)
}
