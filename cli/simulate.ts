import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Command, InvalidArgumentError } from 'commander'
import { type Api, path } from './api-client.ts'
import { listOption, openSession, within } from './api-command.ts'
import { EXIT, RefusedError, UnreachableError, UsageError } from './failures.ts'
import { fields, say } from './output.ts'
import { DEFAULT_URL } from './settings.ts'
import type { Range } from './simulate/behaviour.ts'
import { addCounts, type Counts, type FleetOrders, type FleetReport, noCounts } from './simulate/fleet-protocol.ts'
import { statusLine } from './status-line.ts'

interface SimulateOptions {
  clients: number
  zones: string[]
  url: string
  api?: string
  token?: string
  json?: boolean
  prefix: string
  root: string
  thinkMs: Range
  failures: number
  disconnects: number
  offline: number
  journalDir?: string
  seed: number
  duration?: number
}

const PROGRAM = fileURLToPath(new URL('./simulate/fleet.ts', import.meta.url))
const REGISTRATIONS_AT_ONCE = 8

export function addSimulate(program: Command): void {
  program
    .command('simulate')
    .description('a fleet of devices that take every command; ends with a summary at Ctrl-C or after --duration')
    .requiredOption('--clients <n>', 'how many', within(1, 20_000))
    .option('--zones <zones>', 'A,B: shared out among them in turn', listOption)
    .option('--url <url>', 'the broker: mqtt:// or ws://', 'mqtt://127.0.0.1:1883')
    .option('--api <url>', `the API, to register who is missing (default: SIGNALBOX_URL, else ${DEFAULT_URL})`)
    .option('--token <token>', 'API token (default: SIGNALBOX_TOKEN)')
    .option('--prefix <text>', 'of their ids; existing clients of these ids get new keys', 'sim-')
    .option('--root <topicRoot>', 'prefix of every topic', 'signalbox/v1')
    .option('--think-ms <range>', 'how long a command takes: 50..500', rangeOption, { min: 50, max: 500 })
    .option('--failures <share>', 'of the commands that fail', within(0, 1), 0.01)
    .option('--disconnects <rate>', 'lost connections per device: 0.05/min (or /s, /h)', rateOption, 0.05 / 60)
    .option('--offline <share>', 'of the devices that are away, now these, now those', within(0, 0.95), 0.05)
    .option('--journal-dir <dir>', 'keep their journals there (default: in memory)')
    .option('--seed <n>', 'same seed, same behaviour', within(0, 2 ** 32 - 1), 1)
    .option('--duration <seconds>', 'end after so long', within(0.1, 31_536_000))
    .option('--json', 'the summary as one JSON document on stdout')
    .action(simulate)
}

function rangeOption(text: string): Range {
  const match = /^(\d+)(?:\.\.(\d+))?$/.exec(text)
  const [min, max] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])]
  if (match && min <= max) return { min, max }
  throw new InvalidArgumentError('It must be milliseconds or a range of them: 50..500.')
}

/** Per second. */
function rateOption(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(?:\/(s|min|h))?$/.exec(text)
  if (!match) throw new InvalidArgumentError('It must be a rate: 0.05/min.')
  return Number(match[1]) / { s: 1, min: 60, h: 3600 }[(match[2] ?? 'min') as 's' | 'min' | 'h']
}

async function simulate(options: SimulateOptions): Promise<void> {
  const { clients, disconnects, offline } = options
  if (!/^(mqtt|ws):\/\//.test(options.url)) throw new UsageError('simulate: --url must be mqtt:// or ws://')
  const session = openSession({ url: options.api, token: options.token, json: options.json })
  if (options.journalDir !== undefined) mkdirSync(options.journalDir, { recursive: true })

  const ids = Array.from({ length: clients }, (_, index) => `${options.prefix}${String(index + 1).padStart(4, '0')}`)
  const keys = await register(session.api, ids, options.zones ?? [])
  say(`${clients} clients registered`)

  const stop = new AbortController()
  process.on('SIGINT', () => {
    if (stop.signal.aborted) process.exit(EXIT.interrupted)
    stop.abort()
  })
  const start = performance.now()
  const processes = Math.min(availableParallelism(), Math.ceil(clients / 25))
  const fleets = Array.from({ length: processes }, (_, part) =>
    startFleet({
      url: options.url,
      topicRoot: options.root,
      // Every so-manieth: each process has devices of each zone.
      devices: ids.flatMap((id, index) =>
        index % processes === part ? [{ id, index, clientKey: keys.get(id) as string }] : [],
      ),
      behaviour: { thinkMs: options.thinkMs, failures: options.failures, disconnects, offline, seed: options.seed },
      journalDir: options.journalDir === undefined ? undefined : resolve(options.journalDir),
    }),
  )
  await watchFleets(fleets, clients, { signal: stop.signal, seconds: options.duration })
  const seconds = (performance.now() - start) / 1000
  const counts = addCounts(await Promise.all(fleets.map(endFleet)))
  const summary = {
    clients,
    processes,
    seconds: Math.round(seconds * 10) / 10,
    ...counts,
    perSecond: Math.round((counts.completed / seconds) * 10) / 10,
  }
  session.out.show(summary, () => fields(summary))
  if (counts.everConnected === 0) {
    throw new UnreachableError(`no device could connect to ${options.url}`, { maySent: false })
  }
}

/** Registers who is missing; who is there gets a new key and its zone. Answers the keys by client id. */
async function register(api: Api, ids: string[], zones: string[]): Promise<Map<string, string>> {
  const keys = new Map<string, string>()
  const queue = ids.entries()
  const worker = async (): Promise<void> => {
    for (const [index, id] of queue) {
      const zone = zones[index % zones.length]
      keys.set(id, await keyOf(api, id, zone === undefined ? [] : [zone]))
    }
  }
  await Promise.all(Array.from({ length: REGISTRATIONS_AT_ONCE }, worker))
  return keys
}

async function keyOf(api: Api, id: string, zones: string[]): Promise<string> {
  try {
    return (await api<{ clientKey: string }>('POST', '/clients', { id, zones })).clientKey
  } catch (error) {
    if (!(error instanceof RefusedError) || error.problem.code !== 'CONFLICT') throw error
  }
  if (zones.length > 0) await api('PATCH', path`/clients/${id}`, { zones })
  return (await api<{ clientKey: string }>('POST', path`/clients/${id}/rotate-key`)).clientKey
}

interface Fleet {
  process: ChildProcess
  counts: Counts
}

function startFleet(orders: FleetOrders): Fleet {
  const child = fork(PROGRAM, { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  const fleet: Fleet = { process: child, counts: noCounts() }
  child.on('message', ({ counts }: FleetReport) => {
    fleet.counts = counts
  })
  child.send(orders)
  return fleet
}

/** Says once a second how it goes, until told to stop, the time is over or a process is gone. */
async function watchFleets(
  fleets: Fleet[],
  clients: number,
  { signal, seconds = Number.POSITIVE_INFINITY }: { signal: AbortSignal; seconds?: number },
): Promise<void> {
  const line = statusLine()
  const start = performance.now()
  let before = 0
  const gone = Promise.race(fleets.map(({ process }) => once(process, 'exit')))
  gone.catch(() => undefined)
  let ended = false
  void gone.then(() => {
    ended = true
  })
  while (!signal.aborted && !ended) {
    const passed = (performance.now() - start) / 1000
    if (passed >= seconds) break
    const tick = sleep(Math.min(1000, (seconds - passed) * 1000), undefined, { signal }).catch(() => undefined)
    await Promise.race([tick, gone])
    const { connected, started, completed, failed } = addCounts(fleets.map(({ counts }) => counts))
    const time = `${Math.round((performance.now() - start) / 1000)} s`.padStart(6)
    line.show(
      `${time}  connected ${connected}/${clients}  started ${started} (+${started - before})  completed ${completed}  failed ${failed}`,
    )
    before = started
  }
  line.end()
  if (ended) throw new Error('a process of the fleet ended by itself')
}

/** Lets running commands end and the connections close; answers the last counts. */
async function endFleet({ process: child, ...fleet }: Fleet): Promise<Counts> {
  let { counts } = fleet
  child.on('message', (report: FleetReport) => {
    counts = report.counts
  })
  const exited = once(child, 'exit')
  child.send('stop')
  await exited
  return counts
}
