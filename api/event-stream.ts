import { Readable } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import { z } from 'zod'
import type { Reply } from './route.ts'

/** One message of a stream (HTML standard, server-sent events). */
export interface StreamMessage {
  id?: string
  event: string
  data: unknown
}

/** The body of a route that streams. */
export const EventStream = z.instanceof(Readable)

/**
 * Answers with messages as they come; a slow reader slows its own source down. Silence looks like a dead connection to proxies:
 * a comment every so many seconds keeps it open.
 */
export function eventStream(messages: AsyncIterable<StreamMessage>, heartbeatSeconds: number): Reply {
  return {
    status: 200,
    headers: { 'Content-Type': 'text/event-stream; charset=utf-8', 'X-Accel-Buffering': 'no' },
    body: Readable.from(withHeartbeats(messages, heartbeatSeconds * 1000)),
  }
}

async function* withHeartbeats(messages: AsyncIterable<StreamMessage>, everyMs: number): AsyncGenerator<string> {
  const source = messages[Symbol.asyncIterator]()
  yield 'retry: 1000\n\n'
  for (let next = source.next(); ; ) {
    const silence = new AbortController()
    const result = await Promise.race([
      next,
      wait(everyMs, undefined, { signal: silence.signal, ref: false }).catch(() => undefined),
    ])
    silence.abort()
    if (result === undefined) {
      yield ': heartbeat\n\n'
      continue
    }
    if (result.done) return
    yield encode(result.value)
    next = source.next()
  }
}

function encode({ id, event, data }: StreamMessage): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
}
