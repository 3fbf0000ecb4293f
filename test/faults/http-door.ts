import { setTimeout as sleep } from 'node:timers/promises'
import { type CancelMessage, type CommandMessage, DeviceBound, type Report } from '../../schemas/messages.ts'
import { openStream, type SseStream } from '../support/event-source.ts'
import { type Http, httpClient } from '../support/http.ts'

/** A device's way to the server without MQTT: commands on a stream, reports by PUT. */
export interface HttpDoor {
  /** Resolves when the server has it committed; repeats as long as it does not answer. */
  report(commandId: string, report: Report): Promise<void>
  stop(): Promise<void>
}

export interface HttpDoorOptions {
  http: string
  clientId: string
  clientKey: string
  journalId: string
  /** Returning means that it is kept. */
  onMessage(message: CommandMessage | CancelMessage): void
  presence: { opened(): void; closed(): void }
  /** Between two streams, ms at most. */
  pauseMs: number
}

const REPEAT_MS = 100

/** Opens the stream again and again, whoever else uses this client's id. */
export function openHttpDoor(options: HttpDoorOptions): HttpDoor {
  const { clientId, clientKey, journalId, presence } = options
  const api: Http = httpClient(options.http, clientKey)
  const url = `${options.http}/api/events/${clientId}?journalId=${journalId}`
  const stop = new AbortController()
  let stream: SseStream | undefined

  async function session(): Promise<void> {
    stream = await openStream(url, clientKey, undefined, ({ data }) => take(DeviceBound.parse(data)))
    presence.opened()
    if (stop.signal.aborted) stream.close()
    // Its answer decides nothing: work flows with or without.
    api.post(`/clients/${clientId}/ping`, { state: 'online', journalId }).catch(() => undefined)
    await stream.ended
    presence.closed()
  }

  function take(message: CommandMessage | CancelMessage): void {
    options.onMessage(message)
    // Takes the place of the PUBACK. If it is lost, the next report does.
    if (message.type === 'command')
      put(message.id, { status: 'accepted', attempt: message.attempt }).catch(() => undefined)
  }

  const put = (commandId: string, report: Report) => api.send('PUT', `/commands/${commandId}/status`, report)

  async function stayOpen(): Promise<void> {
    while (!stop.signal.aborted) {
      await session().catch(() => undefined)
      await sleep(Math.random() * options.pauseMs, undefined, { signal: stop.signal }).catch(() => undefined)
    }
  }
  const running = stayOpen()

  return {
    async report(commandId, report) {
      for (;;) {
        const answer = await put(commandId, report).catch(() => undefined)
        if (answer?.status === 200) return
        if (answer && answer.status < 500) throw new Error(`report: ${answer.status} ${JSON.stringify(answer.body)}`)
        await sleep(REPEAT_MS)
      }
    },
    async stop() {
      stop.abort()
      stream?.close()
      await running
    },
  }
}
