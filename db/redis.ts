import { Redis, type RedisOptions } from 'ioredis'

/** A channel in Redis, and the client behind it for counters. Everything is given up at once while Redis is away. */
export interface RedisChannel {
  /** For single commands; rejects while Redis is away, and after `timeoutSeconds` without an answer. */
  readonly client: Redis
  open(channel: string, node: string, listeners: RedisListeners): Promise<void>
  /** Never waits and never throws. */
  publish(message: string): void
  up(): boolean
  counts(): { sent: number; failed: number }
  close(): Promise<void>
}

interface RedisListeners {
  message(text: string): void
  up(): void
  down(why: string): void
}

/** Own messages that have to come back: a Redis that accepts connections and does nothing is noticed by them. */
const BEAT_MS = 500
const RECONNECT_MAX_MS = 1000

/**
 * One connection listens, one speaks. Up means that an own message came all the way back within the last `timeoutSeconds`, so a
 * frozen Redis and a slow one are down too, and nothing piles up in memory for them.
 */
export function createRedisChannel(url: string, timeoutSeconds: number): RedisChannel {
  const options: RedisOptions = {
    lazyConnect: true,
    // Hints are news or nothing.
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    connectTimeout: timeoutSeconds * 1000,
    retryStrategy: (times) => Math.min(50 * times, RECONNECT_MAX_MS),
    reconnectOnError: () => false,
  }
  const client = new Redis(url, { ...options, commandTimeout: timeoutSeconds * 1000 })
  const listener = new Redis(url, { ...options, autoResubscribe: false })
  let up = false
  let beating: NodeJS.Timeout | undefined
  let answeredAt = 0
  let subscribed = false
  let lastError = 'it does not answer'
  let sent = 0
  let failed = 0
  let told: RedisListeners | undefined
  const firstAnswer = Promise.withResolvers<void>()

  for (const connection of [client, listener])
    connection.on('error', (error: Error) => {
      lastError = error.message || (error as NodeJS.ErrnoException).code || lastError
    })

  function judge(): void {
    const answers = performance.now() - answeredAt < timeoutSeconds * 1000
    if (up === answers) return
    up = answers
    if (answers) told?.up()
    else told?.down(lastError)
  }

  let hintsChannel = ''
  return {
    client,
    async open(channel, node, listeners) {
      told = listeners
      hintsChannel = channel
      const own = `${channel}:${node}`
      listener.on('message', (from: string, text: string) => {
        if (from !== own) return listeners.message(text)
        // An old one that was kept back somewhere says nothing about now.
        const at = Number(text)
        if (performance.now() - at < timeoutSeconds * 1000) answeredAt = Math.max(answeredAt, at)
        judge()
        firstAnswer.resolve()
      })
      listener.on('ready', () => {
        listener.subscribe(channel, own).then(
          () => {
            subscribed = true
            beat()
          },
          // A connection that cannot subscribe is worth nothing; the next one tries again.
          () => listener.disconnect(true),
        )
      })
      listener.on('close', () => {
        subscribed = false
        answeredAt = 0
        judge()
      })
      const beat = (): void => {
        judge()
        if (!subscribed || client.status !== 'ready') return
        client.publish(own, String(performance.now())).catch(() => undefined)
      }
      client.on('ready', beat)
      // Their retries go on by themselves.
      client.connect().catch(() => undefined)
      listener.connect().catch(() => undefined)
      beating = setInterval(beat, BEAT_MS)
      beating.unref()
      let timer: NodeJS.Timeout | undefined
      const timeUp = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, timeoutSeconds * 1000)
      })
      await Promise.race([firstAnswer.promise, timeUp])
      clearTimeout(timer)
    },
    publish(message) {
      if (!up) {
        failed++
        return
      }
      client.publish(hintsChannel, message).then(
        () => sent++,
        () => failed++,
      )
    },
    up: () => up,
    counts: () => ({ sent, failed }),
    async close() {
      clearInterval(beating)
      told = undefined
      listener.disconnect()
      client.disconnect()
    },
  }
}

/** The version of the Redis that answers there. Throws with the reason if none does in time. */
export async function redisVersion(url: string, timeoutSeconds: number): Promise<string> {
  const timeoutMs = timeoutSeconds * 1000
  const client = new Redis(url, {
    lazyConnect: true,
    retryStrategy: () => null,
    connectTimeout: timeoutMs,
    commandTimeout: timeoutMs,
  })
  let reason: Error | undefined
  client.on('error', (error) => {
    reason = error
  })
  try {
    await client.connect()
    return /redis_version:(\S+)/.exec(await client.info('server'))?.[1] ?? 'unknown'
  } catch (error) {
    throw reason ?? error
  } finally {
    client.disconnect()
  }
}
