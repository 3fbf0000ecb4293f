import type { Settings } from '../schemas/settings.ts'
import { subjectOf } from './access.ts'
import { begin, filterInput } from './aedes-internals.ts'
import type { Connection } from './connections.ts'
import type { FrameReader } from './gate/frames.ts'
import { createTokenBucket } from './gate/token-bucket.ts'
import type { LimitedLog } from './limited-log.ts'

/** What Aedes gets to read: whole, well-formed packets, not more than may come at once, and nothing before CONNACK. */
export interface Intake {
  begin(connection: Connection, arrived: { connect: Buffer; rest: Buffer; frames: FrameReader }): void
  /** One step of the clock: who leaves a packet incomplete for too long is disconnected. */
  step(): void
}

const MIN_WAIT_MS = 50

export function createIntake(deps: { settings: Settings; limitedLog: LimitedLog; now(): number }): Intake {
  const { settings, now } = deps
  const rate = { burst: settings.MQTT_PACKET_BURST, perSecond: settings.MQTT_PACKETS_PER_SECOND }
  /** Until a few more may be taken in. */
  const waitMs = Math.max(MIN_WAIT_MS, 1000 / rate.perSecond)
  const frameLimitMs = settings.MQTT_FRAME_TIMEOUT_SECONDS * 1000
  /** Whose packet has begun, and since when it is waited for. */
  const incomplete = new Map<Connection, number>()

  return {
    begin(connection, { connect, rest, frames }) {
      const { client, login, reading } = connection
      const bucket = createTokenBucket(rate)
      /**
       * What was read and not looked at: before CONNACK, which a client need not wait for, nothing is, and never if there is none
       * [MQTT-3.1.4-5]; after that, what is too much for now.
       */
      const unread: Buffer[] = rest.length > 0 ? [rest] : []
      let ready = false
      let busy = false

      const take = (chunk: Buffer, most: number): void => {
        const pushed = frames.push(chunk, most, parse)
        bucket.spend(pushed.packets)
        if (!frames.incomplete) incomplete.delete(connection)
        else if (pushed.packets > 0 || !incomplete.has(connection)) incomplete.set(connection, now())
        if (pushed.rest.length > 0) unread.unshift(pushed.rest)
        if (pushed.fault) client.emit('error', new Error(pushed.fault))
      }
      const work = (): void => {
        if (!ready || busy) return
        busy = true
        while (unread.length > 0 && !client.closed) {
          const most = bucket.available()
          if (most < 1) break
          take(unread.shift() as Buffer, most)
        }
        busy = false
        if (unread.length === 0) reading.resume('rate')
        else if (!client.closed) slowDown()
      }
      const slowDown = (): void => {
        const fields = { client: client.id, packetsPerSecond: rate.perSecond }
        deps.limitedLog('warn', subjectOf(login), fields, 'packets come too fast: read more slowly')
        reading.pause('rate')
        setTimeout(work, waitMs).unref()
      }
      const parse = filterInput(client, (chunk) => {
        unread.push(chunk)
        // Aedes reads on by itself a little before CONNACK.
        if (ready) work()
        else client.pause()
      })
      reading.pause('login')
      client.once('connected', () => {
        ready = true
        work()
        reading.resume('login')
      })
      client.conn.once('close', () => incomplete.delete(connection))
      begin(client, parse, connect)
    },

    step() {
      for (const [connection, since] of incomplete) {
        const { client, reading } = connection
        // What is not read from does not keep anybody waiting.
        if (reading.paused || client._parsingBatch > 0) incomplete.set(connection, now())
        else if (now() - since > frameLimitMs) client.emit('error', new Error('a packet was not complete in time'))
      }
    },
  }
}
