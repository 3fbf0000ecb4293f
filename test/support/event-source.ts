export interface SseMessage {
  id: string | undefined
  event: string
  // biome-ignore lint/suspicious/noExplicitAny: tests read fields of many shapes
  data: any
}

export interface SseStream {
  messages: SseMessage[]
  /** Resolves when the server has ended the stream or the connection is gone. */
  ended: Promise<void>
  /** The caller leaves in the middle. */
  close(): void
}

/** Reads server-sent events; every message that was complete when the connection ended is kept. */
export async function openStream(
  url: string,
  token: string,
  lastEventId?: string,
  onMessage?: (message: SseMessage) => void,
): Promise<SseStream> {
  const leaving = new AbortController()
  const response = await fetch(url, {
    headers: {
      authorization: `Bearer ${token}`,
      ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
    },
    signal: leaving.signal,
  })
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`)
  const messages: SseMessage[] = []
  const take = (message: SseMessage): void => {
    messages.push(message)
    onMessage?.(message)
  }
  return { messages, ended: read(response.body as ReadableStream<Uint8Array>, take), close: () => leaving.abort() }
}

async function read(body: ReadableStream<Uint8Array>, take: (message: SseMessage) => void): Promise<void> {
  let buffer = ''
  try {
    for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
      buffer += chunk
      for (let end = buffer.indexOf('\n\n'); end >= 0; end = buffer.indexOf('\n\n')) {
        const message = parse(buffer.slice(0, end))
        buffer = buffer.slice(end + 2)
        if (message) take(message)
      }
    }
  } catch (error) {
    if ((error as Error).name !== 'AbortError' && !(error instanceof TypeError)) throw error
  }
}

function parse(block: string): SseMessage | undefined {
  const fields = new Map(
    block.split('\n').map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trimStart()]),
  )
  const data = fields.get('data')
  return data === undefined
    ? undefined
    : { id: fields.get('id'), event: fields.get('event') ?? 'message', data: JSON.parse(data) }
}
