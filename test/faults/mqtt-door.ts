import { setTimeout as sleep } from 'node:timers/promises'
import { Connection } from '../../agent/connection.ts'
import { parseInbound } from '../../agent/inbound.ts'
import type { CancelMessage, CommandMessage, Report } from '../../schemas/messages.ts'
import { buildTopic } from '../../schemas/topics.ts'
import { ROOT } from '../support/device.ts'

/** A device's way to the server over MQTT, on a memory that it shares with another way. */
export interface MqttDoor {
  /** Resolves at the PUBACK; throws if there is no connection, or it ended before. */
  report(commandId: string, report: Report): Promise<void>
  stop(): Promise<void>
}

export interface MqttDoorOptions {
  url: string
  clientId: string
  clientKey: string
  journalId: string
  zones: string[]
  /** Returning acknowledges it. */
  onMessage(message: CommandMessage | CancelMessage): void
  presence: { opened(): void; closed(): void }
  /** Between two connections, ms at most. */
  pauseMs: number
}

const LIMITS = { keepaliveSeconds: 30, connectTimeoutMs: 10_000, ackTimeoutMs: 20_000 }
const CLOSE_MS = 1000

/** Connects again and again, whoever else uses this client's id. */
export function openMqttDoor(options: MqttDoorOptions): MqttDoor {
  const { url, clientId, clientKey, journalId, presence } = options
  const stop = new AbortController()
  let live: Connection | undefined

  const topics = [
    buildTopic(ROOT, 'clientCommands', { clientId }),
    buildTopic(ROOT, 'broadcastCommands'),
    ...options.zones.map((zone) => buildTopic(ROOT, 'zoneCommands', { zone })),
  ]

  async function session(): Promise<void> {
    const onMessage = (topic: string, payload: Buffer): void => {
      const inbound = parseInbound(ROOT, topic, payload)
      if (inbound.kind === 'command' || inbound.kind === 'cancel') options.onMessage(inbound.message)
    }
    const connection = await Connection.open({ url, clientId, clientKey, ...LIMITS, onMessage, signal: stop.signal })
    try {
      const status = buildTopic(ROOT, 'clientStatus', { clientId })
      await connection.publish(status, { state: 'online', journalId }, { retain: true })
      await connection.subscribe(topics)
      live = connection
      presence.opened()
      await connection.closed
      presence.closed()
    } finally {
      live = undefined
      await connection.close(CLOSE_MS)
    }
  }

  async function stayConnected(): Promise<void> {
    while (!stop.signal.aborted) {
      await session().catch(() => undefined)
      await sleep(Math.random() * options.pauseMs, undefined, { signal: stop.signal }).catch(() => undefined)
    }
  }
  const running = stayConnected()

  return {
    async report(commandId, report) {
      if (!live) throw new Error('no connection')
      await live.publish(buildTopic(ROOT, 'commandStatus', { clientId, commandId }), report)
    },
    async stop() {
      stop.abort()
      await running
    },
  }
}
