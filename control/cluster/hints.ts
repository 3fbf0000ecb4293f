import type { Logger } from 'pino'
import type { ClientStatus } from '../../schemas/clients.ts'
import type { Target } from '../../schemas/commands.ts'
import type { Json } from '../../schemas/json.ts'
import type { ErrorReply } from '../../schemas/messages.ts'
import type { Line } from './line.ts'

/** What a node tells the others. Each is only a reason to look: what it is about is in PostgreSQL. */
interface HintBodies {
  /** The client may have something to claim. */
  work: { clientId: string }
  /** A group command is stored: the node's sessions claim for the one publish of it here. */
  group: { commandId: string; target: Target }
  /** The client is to be told that the command is withdrawn, or asked about it. */
  cancel: { commandId: string; clientId: string }
  /** An execution of the command is settled. */
  settled: { commandId: string }
  /** What the client's status topic retains, as of this session. An older session of the client ends. */
  status: { clientId: string; epoch: number; status: Record<string, Json> }
  /** The client was changed: its configuration, its keys, whether it may connect. */
  client: { clientId: string }
  /** Tokens or grants were changed. */
  access: Record<string, never>
  action: { name: string }
  /** A client without MQTT has said here that it lives; its stream is on another node. */
  ping: { clientId: string; status: ClientStatus }
  /** For the connection that the client may have there. */
  reply: { clientId: string; reply: ErrorReply }
  /** Whether somebody here listens to everybody's traffic: then copies are wanted for some seconds. */
  listening: { wanted: boolean }
  /** A message that was published there. */
  copy: { topic: string; payload: string }
}

type HintKind = keyof HintBodies
type Hint<K extends HintKind = HintKind> = { [Kind in K]: [Kind, HintBodies[Kind]] }[K]

export type HintHandlers = { [K in HintKind]: (body: HintBodies[K], from: string) => unknown }

/** To all other nodes, with whatever else is told in this turn of the loop. */
export type Tell = <K extends HintKind>(kind: K, body: HintBodies[K]) => void

export interface Hints {
  send: Tell
  /** Hands what others sent to their handlers. */
  receive(message: string): void
  /** From here on; what comes before it is dropped. */
  handle(handlers: HintHandlers): void
}

interface Message {
  from: string
  hints: Hint[]
}

/** In one message: a storm of hints makes several. */
const MAX_IN_MESSAGE = 500

/** Hints of one turn share a message, and what was said twice in it is said once. Without a line nothing is sent. */
export function createHints({ node, line, log }: { node: string; line: Line | undefined; log: Logger }): Hints {
  let waiting = new Set<string>()
  let handlers: HintHandlers | undefined

  function flush(): void {
    const all = [...waiting]
    waiting = new Set()
    for (let from = 0; from < all.length; from += MAX_IN_MESSAGE) {
      const hints = all.slice(from, from + MAX_IN_MESSAGE).join(',')
      line?.send(`{"from":${JSON.stringify(node)},"hints":[${hints}]}`)
    }
  }

  const failed = (kind: string) => (error: Error) =>
    log.warn({ hint: kind, reason: error.message }, 'hint of another node is not followed')

  function follow([kind, body]: Hint, from: string): void {
    const handler = handlers?.[kind] as ((body: unknown, from: string) => unknown) | undefined
    // A newer node may know more kinds.
    if (!handler) return
    Promise.try(handler, body, from).catch(failed(kind))
  }

  return {
    send(kind, body) {
      if (!line) return
      if (waiting.size === 0) setImmediate(flush)
      waiting.add(JSON.stringify([kind, body]))
    },
    receive(text) {
      try {
        const { from, hints } = JSON.parse(text) as Message
        if (from === node) return
        for (const hint of hints) follow(hint, from)
      } catch (error) {
        failed('unreadable')(error as Error)
      }
    },
    handle(given) {
      handlers = given
    },
  }
}
