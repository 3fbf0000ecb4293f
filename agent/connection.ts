import { connect, type MqttClient } from 'mqtt'

/** The server's answer to CONNECT was a refusal; `code` is CONNACK's [MQTT-3.2.2-4]. */
export class RefusedError extends Error {
  readonly code: number

  constructor(code: number, message: string) {
    super(message)
    this.name = 'RefusedError'
    this.code = code
  }
}

export interface ConnectionOptions {
  /** mqtt://, mqtts://, ws:// or wss:// */
  url: string
  clientId: string
  clientKey: string
  keepaliveSeconds: number
  /** Without a CONNACK for this long the attempt is given up. */
  connectTimeoutMs: number
  /** A publish without PUBACK, or a subscribe without SUBACK, for this long ends the connection: the next one repeats. */
  ackTimeoutMs: number
  /** Returning acknowledges the message; throwing leaves it without PUBACK. */
  onMessage: (topic: string, payload: Buffer) => void
  signal: AbortSignal
}

/** One connection, from CONNACK to its end. It never comes back: nothing of it can be sent again behind our back. */
export class Connection {
  /** Resolves, with the reason, when the connection is gone. */
  readonly closed: Promise<string>
  readonly #client: MqttClient
  readonly #ackTimeoutMs: number
  readonly #end: (reason: string) => void
  #error: Error | undefined
  #unanswered = 0

  /** Resolves at CONNACK 0. Throws RefusedError for another code, otherwise the network's error. */
  static async open(options: ConnectionOptions): Promise<Connection> {
    const connection = new Connection(options)
    const connected = new Promise<void>((resolve) => connection.#client.once('connect', () => resolve()))
    const failure = await Promise.race([connected, connection.closed])
    if (failure === undefined) return connection
    const { code } = (connection.#error ?? {}) as { code?: unknown }
    if (typeof code === 'number') throw new RefusedError(code, failure)
    throw connection.#error ?? new Error(failure)
  }

  private constructor(options: ConnectionOptions) {
    this.#ackTimeoutMs = options.ackTimeoutMs
    const client = connect(options.url, {
      protocolVersion: 4,
      clientId: options.clientId,
      username: options.clientId,
      password: options.clientKey,
      clean: true,
      resubscribe: false,
      reconnectPeriod: 0,
      keepalive: options.keepaliveSeconds,
      connectTimeout: options.connectTimeoutMs,
    })
    this.#client = client
    const { promise, resolve } = Promise.withResolvers<string>()
    this.closed = promise
    this.#end = (reason) => {
      // Forced: it also fails every publish that still waits for its PUBACK.
      if (!client.disconnecting) client.end(true)
      resolve(reason)
    }
    const abort = (): void => this.#end('stopped')
    options.signal.addEventListener('abort', abort, { once: true })
    client.on('error', (error) => {
      this.#error ??= error
      this.#end(error.message || error.name)
    })
    client.on('close', () => {
      options.signal.removeEventListener('abort', abort)
      this.#end('the connection was closed')
    })
    client.handleMessage = (packet, callback) => {
      // The PUBACK goes out when the callback is called without an error; otherwise the server's timeout repeats.
      try {
        options.onMessage(packet.topic, Buffer.from(packet.payload))
        callback()
      } catch (error) {
        callback(error as Error)
      }
    }
  }

  /** QoS 1. Resolves at the PUBACK, throws if the connection ends before it. */
  async publish(topic: string, body: unknown, { retain = false } = {}): Promise<void> {
    const sent = this.#client.publishAsync(topic, JSON.stringify(body), { qos: 1, retain })
    await this.#answered(sent, `no PUBACK for ${topic}`)
  }

  /** QoS 1. Resolves at the SUBACK with the topics that were refused. */
  async subscribe(topics: string[]): Promise<string[]> {
    const granted = new Promise<readonly number[]>((resolve, reject) => {
      this.#client.subscribe(topics, { qos: 1 }, (error, _, packet) => {
        if (packet) resolve(packet.granted as number[])
        else reject(error ?? new Error('no SUBACK'))
      })
    })
    const codes = await this.#answered(granted, 'no SUBACK')
    return topics.filter((_, index) => ((codes[index] ?? 0x80) & 0x80) !== 0)
  }

  async unsubscribe(topics: string[]): Promise<void> {
    await this.#answered(this.#client.unsubscribeAsync(topics), 'no UNSUBACK')
  }

  /** DISCONNECT; by force if something still waits for its answer or the end does not come within `timeoutMs`. */
  async close(timeoutMs: number): Promise<void> {
    if (this.#unanswered > 0 || !this.#client.connected) this.#end('stopped')
    else this.#client.end()
    const timer = setTimeout(() => this.#client.stream.destroy(), timeoutMs)
    await this.closed
    clearTimeout(timer)
  }

  async #answered<T>(answer: Promise<T>, complaint: string): Promise<T> {
    const timer = setTimeout(() => this.#end(complaint), this.#ackTimeoutMs).unref()
    this.#unanswered++
    try {
      return await answer
    } finally {
      this.#unanswered--
      clearTimeout(timer)
    }
  }
}
