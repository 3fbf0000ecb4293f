import { setTimeout as sleep } from 'node:timers/promises'
import { type ApiTarget, fetchApi } from './api-client.ts'
import { RefusedError, UnreachableError } from './failures.ts'

/** One event of a stream as the HTML standard parses it: an empty line ends it, comments are skipped. */
export interface StreamEvent {
  id: string
  type: string
  data: string
}

const RETRY_MIN_MS = 500
const RETRY_MAX_MS = 10_000

/**
 * The events of a stream, without a gap across lost connections (Last-Event-ID), until the consumer stops or `signal` aborts.
 * Throws UnreachableError if the very first connection fails, RefusedError if the server says no for good.
 */
export async function* readEventStream(
  target: ApiTarget,
  path: string,
  options: { signal?: AbortSignal; onConnect?(): void; onReconnect?(error: Error): void } = {},
): AsyncGenerator<StreamEvent> {
  const { signal, onConnect, onReconnect } = options
  let lastId = ''
  let connected = false
  let failures = 0
  for (;;) {
    try {
      const headers = { accept: 'text/event-stream', ...(lastId ? { 'last-event-id': lastId } : {}) }
      const response = await fetchApi(target, path, { headers, signal })
      if (!connected) onConnect?.()
      connected = true
      failures = 0
      for await (const event of parseEventStream(response.body ?? [])) {
        lastId = event.id
        yield event
      }
      throw new UnreachableError('the stream ended', { maySent: true })
    } catch (error) {
      if (signal?.aborted) return
      if (!connected || !isPassing(error)) throw error
      onReconnect?.(error as Error)
      await sleep(Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** failures++), undefined, { signal }).catch(() => undefined)
      if (signal?.aborted) return
    }
  }
}

/** Whether trying again makes sense: the network, a server that restarts, or its database. */
const isPassing = (error: unknown): boolean =>
  error instanceof RefusedError
    ? error.problem.status >= 500 || error.problem.status === 429
    : !(error instanceof RangeError || error instanceof SyntaxError)

/** https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation */
export async function* parseEventStream(
  bytes: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncGenerator<StreamEvent> {
  const decoder = new TextDecoder()
  let rest = ''
  let id = ''
  let type = ''
  let data: string[] = []
  for await (const chunk of bytes) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split(/\r\n|\n|\r(?!$)/)
    rest = lines.pop() as string
    for (const line of lines) {
      if (line === '') {
        if (data.length > 0) yield { id, type: type || 'message', data: data.join('\n') }
        type = ''
        data = []
        continue
      }
      const colon = line.indexOf(':')
      const field = colon < 0 ? line : line.slice(0, colon)
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
      if (field === 'data') data.push(value)
      else if (field === 'event') type = value
      else if (field === 'id' && !value.includes('\0')) id = value
    }
  }
}
