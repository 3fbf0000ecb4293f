import { EventEmitter } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Id } from '../schemas/ids.ts'
import type { CancelMessage, CommandMessage } from '../schemas/messages.ts'
import { buildTopic } from '../schemas/topics.ts'
import { type Backoff, reconnectDelay } from './backoff.ts'
import type { BootClock } from './boot-clock.ts'
import { Connection, RefusedError } from './connection.ts'
import type { Handler } from './handlers.ts'
import { parseInbound } from './inbound.ts'
import { Journal } from './journal.ts'
import { type AgentLog, silentLog } from './log.ts'
import { Reporter } from './reporter.ts'
import { Runner } from './runner.ts'

const FLUSH_MS = 2000
const CLOSE_MS = 1000

export interface AgentOptions {
  /** The server: mqtt://, mqtts://, ws:// or wss://; WebSocket URLs with their path (`/mqtt`). */
  url: string
  clientId: string
  /** `sbk_...` */
  clientKey: string
  /** Path of the journal's SQLite file. `:memory:` forgets at the end of the process: each start is a new journal. */
  journal: string
  /** One per action. A command with another action is rejected with UNKNOWN_ACTION. */
  handlers: Record<string, Handler>
  topicRoot?: string
  /** Handlers that run at once; priority 10 passes it. Default 1. */
  concurrency?: number
  /** Of the software on this device; part of its status. */
  version?: string
  /** Further fields of the status, asked for whenever it is published. */
  status?: () => object
  log?: AgentLog
  /** Default 1 s to 30 s. */
  reconnect?: Backoff
  /** Default 30; the server supervises at most 120. */
  keepaliveSeconds?: number
  /** Without a CONNACK for this long the attempt is given up. Default 30 s: a server to which a whole fleet returns may take its time. */
  connectTimeoutMs?: number
  /** Without PUBACK or SUBACK for this long the connection is made anew. Default 60 s. */
  ackTimeoutMs?: number
  /** How long commands are remembered after their outcome was acknowledged. Default 30. */
  retentionDays?: number
  /** Default: this machine's. Another one stands for another boot. */
  clock?: BootClock
}

export interface AgentEvents {
  /** Status published, subscriptions answered: commands can come. */
  connected: []
  disconnected: [reason: string]
  /** CONNACK with this code [MQTT-3.2.2-4]: 4 bad credentials, 5 disabled or foreign client id, 3 try later. */
  refused: [code: number, message: string]
}

interface Started {
  journal: Journal
  reporter: Reporter
  runner: Runner
  loop: Promise<void>
  stop: AbortController
}

/**
 * One client of Signalbox: takes its commands, runs each (id, attempt) at most once, and reports what came of it,
 * across lost connections, restarts and crashes (contract, sections 2 and 3).
 */
export class Agent extends EventEmitter<AgentEvents> {
  readonly #options: AgentOptions
  readonly #root: string
  readonly #log: AgentLog
  readonly #backoff: Backoff
  #started: Started | undefined
  #stopping: Promise<void> | undefined
  #connection: Connection | undefined
  #refusal: number | undefined
  #zones = new Set<string>()
  #zoneChanges: Promise<void> = Promise.resolve()

  /** Throws if the client id or the URL is not valid. */
  constructor(options: AgentOptions) {
    super()
    Id.parse(options.clientId)
    if (!/^(mqtts?|wss?):$/.test(new URL(options.url).protocol)) {
      throw new Error(`url: ${options.url} is none of mqtt://, mqtts://, ws://, wss://`)
    }
    this.#options = options
    this.#root = options.topicRoot ?? 'signalbox/v1'
    this.#log = options.log ?? silentLog
    this.#backoff = options.reconnect ?? { minMs: 1000, maxMs: 30_000 }
  }

  /** Names the journal; undefined while the agent is not started. */
  get journalId(): string | undefined {
    return this.#started?.journal.journalId
  }

  /** Opens the journal, settles what the last process left behind and begins to connect. Throws if it cannot be opened. */
  async start(): Promise<void> {
    if (this.#started) throw new Error('the agent is already started')
    const { journal: file, clock, retentionDays, handlers, concurrency = 1 } = this.#options
    const log = this.#log
    const journal = new Journal({ file, log, clock, retentionDays })
    const left = journal.recover()
    if (left.interrupted > 0) log.warn(left, 'Commands were interrupted: their outcome is unknown')
    const reporter = new Reporter({
      outcome: (key) => journal.report(key),
      unreported: () => journal.unreported(),
      acknowledged: (key) => {
        try {
          journal.acknowledged(key)
        } catch (error) {
          log.warn({ err: error, ...key }, 'The journal cannot be written: an outcome will be reported again')
        }
      },
    })
    const runner = new Runner({ journal, reporter, handlers, concurrency, log })
    const stop = new AbortController()
    this.#started = { journal, reporter, runner, stop, loop: Promise.resolve() }
    this.#started.loop = this.#stayConnected(this.#started)
  }

  /**
   * Starts no more commands, gives running handlers `graceMs` (default 10 s) to end, then aborts their signals and gives
   * them `abortMs` (default 1 s), sends the reports that are left if there is a connection, disconnects and closes the
   * journal. A handler that has not ended by then has an unknown outcome.
   */
  async stop({ graceMs = 10_000, abortMs = 1000 }: { graceMs?: number; abortMs?: number } = {}): Promise<void> {
    if (this.#started) this.#stopping ??= this.#stop(this.#started, graceMs, abortMs)
    await this.#stopping
  }

  /** Publishes the status again, when what `status()` returns has changed. Without a connection: at the next one. */
  async publishStatus(): Promise<void> {
    if (this.#connection) await this.#publishStatus(this.#connection)
  }

  async #stop({ journal, reporter, runner, loop, stop }: Started, graceMs: number, abortMs: number): Promise<void> {
    await runner.stop(graceMs, abortMs)
    if (runner.unfinished > 0) {
      this.#log.warn({ handlers: runner.unfinished }, 'Handlers did not end: their outcome is unknown')
    }
    await Promise.race([reporter.idle(), sleep(FLUSH_MS, undefined, { ref: false })])
    await this.#connection?.close(CLOSE_MS)
    stop.abort()
    await loop
    journal.close()
    this.#started = undefined
    this.#stopping = undefined
  }

  async #stayConnected(started: Started): Promise<void> {
    const { signal } = started.stop
    let since = performance.now()
    while (!signal.aborted) {
      try {
        await this.#session(started)
        since = performance.now()
      } catch (error) {
        if (signal.aborted) return
        this.#logFailure(error as Error)
      }
      const delay = reconnectDelay(this.#backoff, performance.now() - since)
      await sleep(delay, undefined, { signal }).catch(() => undefined)
    }
  }

  /** One connection from CONNECT to its end. Throws if it did not get as far as being subscribed. */
  async #session(started: Started): Promise<void> {
    const connection = await this.#open(started)
    this.#connection = connection
    this.#refusal = undefined
    this.#zones = new Set()
    try {
      // Status first: the server must know the journalId before it hands anything over (contract, 3).
      await this.#publishStatus(connection)
      const names = ['clientCommands', 'broadcastCommands', 'clientConfig', 'clientReplies'] as const
      this.#logRefused(await connection.subscribe(names.map((name) => this.#topic(name))))
      started.reporter.attach((id, report) => connection.publish(this.#topic('commandStatus', id), report))
      this.#log.info({ url: this.#options.url }, 'Connected')
      this.emit('connected')
      const reason = await connection.closed
      this.#log.info({ reason }, 'Disconnected')
      this.emit('disconnected', reason)
    } finally {
      started.reporter.detach()
      this.#connection = undefined
      await connection.close(CLOSE_MS)
    }
  }

  async #open(started: Started): Promise<Connection> {
    const { url, clientId, clientKey } = this.#options
    const { keepaliveSeconds = 30, connectTimeoutMs = 30_000, ackTimeoutMs = 60_000 } = this.#options
    const { signal } = started.stop
    const onMessage = (topic: string, payload: Buffer): void => this.#take(started, topic, payload)
    const limits = { keepaliveSeconds, connectTimeoutMs, ackTimeoutMs }
    return await Connection.open({ url, clientId, clientKey, ...limits, onMessage, signal })
  }

  async #publishStatus(connection: Connection): Promise<void> {
    const { version, status } = this.#options
    const body = { ...this.#extraStatus(status), state: 'online', version, journalId: this.journalId }
    await connection.publish(this.#topic('clientStatus'), body, { retain: true })
  }

  #extraStatus(status: AgentOptions['status']): object {
    try {
      return status?.() ?? {}
    } catch (error) {
      this.#log.error({ err: error }, 'status() failed: the status is published without its fields')
      return {}
    }
  }

  /** Returning acknowledges the message; an error of the journal must reach the caller, so that it is not. */
  #take(started: Started, topic: string, payload: Buffer): void {
    const inbound = parseInbound(this.#root, topic, payload)
    if (inbound.kind === 'command') this.#takeCommand(started, inbound.message)
    else if (inbound.kind === 'cancel') this.#takeCancel(started, inbound.message)
    else if (inbound.kind === 'config') this.#takeZones(inbound.message.zones)
    else if (inbound.kind === 'reply') this.#log.warn(inbound.message, 'The server could not use a message')
    else this.#log.warn({ topic, reason: inbound.reason }, 'A message that makes no sense was acknowledged and dropped')
  }

  #takeCommand({ journal, runner }: Started, message: CommandMessage): void {
    runner.changed(this.#kept(() => journal.received(message)))
  }

  #takeCancel({ journal, runner }: Started, message: CancelMessage): void {
    const { abort, ...change } = this.#kept(() => journal.cancelled(message))
    if (abort !== undefined) runner.abort({ id: message.id, attempt: abort }, message.reason ?? 'cancelled')
    runner.changed(change)
  }

  #kept<T>(write: () => T): T {
    try {
      return write()
    } catch (error) {
      this.#log.error({ err: error }, 'The journal cannot be written: a message stays without PUBACK')
      throw error
    }
  }

  /** Subscribes to the zones that are new and unsubscribes those that are lost, one configuration after the other. */
  #takeZones(zones: string[]): void {
    const connection = this.#connection
    if (!connection) return
    const topics = (list: string[]): string[] => list.map((zone) => buildTopic(this.#root, 'zoneCommands', { zone }))
    const gained = zones.filter((zone) => !this.#zones.has(zone))
    const lost = [...this.#zones].filter((zone) => !zones.includes(zone))
    this.#zones = new Set(zones)
    const change = async (): Promise<void> => {
      if (lost.length > 0) await connection.unsubscribe(topics(lost))
      if (gained.length > 0) this.#logRefused(await connection.subscribe(topics(gained)))
    }
    // An error is the end of the connection; the next one begins with its configuration.
    this.#zoneChanges = this.#zoneChanges.then(change).catch(() => undefined)
  }

  #logFailure(error: Error): void {
    if (!(error instanceof RefusedError)) {
      this.#log.warn({ reason: error.message }, 'Could not connect')
      return
    }
    const { code, message } = error
    if (code !== this.#refusal) {
      const why = { 3: 'unavailable', 4: 'bad credentials', 5: 'disabled or not this client' }[code] ?? message
      this.#log.error({ code, clientId: this.#options.clientId }, `The server refuses the connection: ${why}`)
    }
    this.#refusal = code
    this.emit('refused', code, message)
  }

  #topic(name: 'clientStatus' | 'clientCommands' | 'clientConfig' | 'clientReplies' | 'broadcastCommands'): string
  #topic(name: 'commandStatus', commandId: string): string
  #topic(name: Parameters<typeof buildTopic>[1], commandId?: string): string {
    return buildTopic(this.#root, name, { clientId: this.#options.clientId, commandId })
  }

  #logRefused(topics: string[]): void {
    for (const topic of topics) this.#log.error({ topic }, 'The server refused a subscription (128)')
  }
}
