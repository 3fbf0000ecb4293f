import { createTurns } from '../control/turns.ts'
import type { Settings } from '../schemas/settings.ts'
import { subjectOf } from './access.ts'
import { begin, filterInput, isLast } from './aedes-internals.ts'
import type { Connection } from './connections.ts'
import type { FrameReader } from './gate/frames.ts'
import { type Rate, TokenBucket } from './gate/token-bucket.ts'
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
  const rate: Rate = { burst: settings.MQTT_PACKET_BURST, perSecond: settings.MQTT_PACKETS_PER_SECOND }
  /** Until a few more may be taken in. */
  const waitMs = Math.max(MIN_WAIT_MS, 1000 / rate.perSecond)
  const turns = createTurns()
  const frameLimitMs = settings.MQTT_FRAME_TIMEOUT_SECONDS * 1000
  /** Whose packet has begun, and since when it is waited for. */
  const incomplete = new Map<Connection, number>()

  /** What one connection sends. */
  class Inlet {
    readonly parse: (packets: Buffer) => void
    ready = false
    #busy = false
    readonly #connection: Connection
    readonly #frames: FrameReader
    readonly #bucket = new TokenBucket(rate)
    /**
     * What was read and not looked at: before CONNACK, which a client need not wait for, nothing is, and never if there is none
     * [MQTT-3.1.4-5]; after that, what is too much for now.
     */
    readonly #unread: Buffer[]

    constructor(connection: Connection, frames: FrameReader, rest: Buffer) {
      this.#connection = connection
      this.#frames = frames
      this.#unread = rest.length > 0 ? [rest] : []
      this.parse = filterInput(connection.client, (chunk) => this.#arrived(chunk))
    }

    work(): void {
      const { client, reading } = this.#connection
      if (!this.ready || this.#busy) return
      this.#busy = true
      // What this reads is taken in the same turn: its end may be right behind it.
      reading.resume('turn')
      while (this.#unread.length > 0 && !client.closed) {
        const most = this.#bucket.available()
        if (most < 1) break
        this.#take(this.#unread.shift() as Buffer, most)
      }
      this.#busy = false
      if (this.#unread.length === 0) reading.resume('rate')
      else if (!client.closed) this.#slowDown()
    }

    #arrived(chunk: Buffer): void {
      const { client, reading } = this.#connection
      this.#unread.push(chunk)
      if (this.#busy) return
      // Aedes reads on by itself a little before CONNACK.
      if (!this.ready) client.pause()
      // Behind the last chunk comes the end, which does not wait for a turn.
      else if (isLast(client)) this.work()
      else if (!turns.run(() => this.work())) reading.pause('turn')
    }

    #take(chunk: Buffer, most: number): void {
      const connection = this.#connection
      const frames = this.#frames
      const pushed = frames.push(chunk, most, this.parse)
      this.#bucket.spend(pushed.packets)
      if (!frames.incomplete) incomplete.delete(connection)
      else if (pushed.packets > 0 || !incomplete.has(connection)) incomplete.set(connection, now())
      if (pushed.rest.length > 0) this.#unread.unshift(pushed.rest)
      if (pushed.fault) connection.client.emit('error', new Error(pushed.fault))
    }

    #slowDown(): void {
      const { client, login, reading } = this.#connection
      const fields = { client: client.id, packetsPerSecond: rate.perSecond }
      deps.limitedLog('warn', subjectOf(login), fields, 'packets come too fast: read more slowly')
      reading.pause('rate')
      setTimeout(() => this.work(), waitMs).unref()
    }
  }

  return {
    begin(connection, { connect, rest, frames }) {
      const { client, reading } = connection
      const inlet = new Inlet(connection, frames, rest)
      reading.pause('login')
      client.once('connected', () => {
        inlet.ready = true
        inlet.work()
        reading.resume('login')
      })
      client.conn.on('close', () => incomplete.delete(connection))
      begin(client, inlet.parse, connect)
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
