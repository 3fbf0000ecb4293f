import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent } from '../../agent/agent.ts'
import type { Handler } from '../../agent/handlers.ts'
import { addressOf, openRelay, type Relay, throughRelay } from '../relay.ts'
import { type Behaviour, createLuck, type Outage, outages, thinkMs } from './behaviour.ts'
import { type FleetOrders, type FleetReport, noCounts } from './fleet-protocol.ts'

/** A process of `signalbox simulate`: many devices, each the agent that real devices run. */
const REPORT_MS = 250
const BATCH = 50
const BATCH_LIMIT_MS = 5000
const LONGEST_TIMER_MS = 2 ** 31 - 1

const counts = noCounts()
const stop = new AbortController()
const agents: Agent[] = []

process.on('SIGINT', () => undefined) // Ctrl-C reaches the whole group; the parent says when to stop.
process.once('disconnect', () => process.exit(1))
process.once('message', (orders: FleetOrders) => {
  process.once('message', () => void end())
  void begin(orders)
})

async function begin(orders: FleetOrders): Promise<void> {
  setInterval(tell, REPORT_MS).unref()
  for (let next = 0; next < orders.devices.length && !stop.signal.aborted; next += BATCH) {
    const started = orders.devices.slice(next, next + BATCH).map((device) => startDevice(orders, device))
    await Promise.race([Promise.all(started), sleep(BATCH_LIMIT_MS)])
  }
}

/** Resolves when it is connected for the first time, or away. */
async function startDevice(orders: FleetOrders, device: FleetOrders['devices'][number]): Promise<void> {
  const { url, topicRoot, behaviour, journalDir } = orders
  const luck = createLuck(behaviour.seed, device.index)
  const network = createLuck(~behaviour.seed, device.index)
  const shaky = behaviour.disconnects > 0 || behaviour.offline > 0
  const relay = shaky ? await openRelay(addressOf(url)) : undefined
  const agent = new Agent({
    url: relay ? throughRelay(url, relay) : url,
    clientId: device.id,
    clientKey: device.clientKey,
    topicRoot,
    version: 'simulated',
    journal: journalDir === undefined ? ':memory:' : join(journalDir, `${device.id}.sqlite`),
    handlers: everyAction(work(behaviour, luck)),
    reconnect: { minMs: 500, maxMs: 5000 },
  })
  let known = false
  const connected = new Promise<void>((resolve) => {
    agent.on('connected', () => {
      counts.connected++
      if (!known) counts.everConnected++
      known = true
      resolve()
    })
  })
  agent.on('disconnected', () => {
    counts.connected--
    if (!stop.signal.aborted) counts.disconnects++
  })
  agent.on('refused', () => {
    counts.refused++
  })
  agents.push(agent)
  const away = new Promise<void>((resolve) => {
    if (relay) void haveOutages(relay, outages(behaviour, network), resolve)
  })
  await agent.start()
  await Promise.race([connected, away])
}

/** `onCut` is called before this returns if the device begins with an outage. */
async function haveOutages(relay: Relay, all: Iterable<Outage>, onCut: () => void): Promise<void> {
  const { signal } = stop
  for (const { afterMs, forMs } of all) {
    const ms = Math.min(afterMs, LONGEST_TIMER_MS)
    if (ms > 0) await sleep(ms, undefined, { signal }).catch(() => undefined)
    if (signal.aborted) return
    relay.cut()
    onCut()
    await sleep(forMs, undefined, { signal }).catch(() => undefined)
    relay.restore()
  }
}

function work({ thinkMs: range, failures }: Behaviour, luck: () => number): Handler {
  return async ({ signal }) => {
    counts.started++
    const ms = thinkMs(range, luck())
    const fails = luck() < failures
    try {
      await sleep(ms, undefined, { signal })
    } catch (error) {
      counts.stopped++
      throw error
    }
    if (fails) {
      counts.failed++
      throw Object.assign(new Error('failed by chance, as asked for'), { code: 'SIMULATED' })
    }
    counts.completed++
    return { simulated: true, ms }
  }
}

/** A simulated device knows every action. */
const everyAction = (handler: Handler): Record<string, Handler> =>
  new Proxy<Record<string, Handler>>(
    {},
    {
      get: () => handler,
      getOwnPropertyDescriptor: () => ({ value: handler, configurable: true, enumerable: true, writable: true }),
    },
  )

const tell = (): void => void process.send?.({ counts } satisfies FleetReport)

async function end(): Promise<void> {
  stop.abort()
  await Promise.all(agents.map((agent) => agent.stop({ graceMs: 2000, abortMs: 200 })))
  process.send?.({ counts } satisfies FleetReport, () => process.exit(0))
}
