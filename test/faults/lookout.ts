import { setTimeout as sleep } from 'node:timers/promises'
import { connectDevice } from '../support/device.ts'
import { ADMIN_TOKEN, type Http, httpClient } from '../support/http.ts'
import { memoryOf } from './postgres-processes.ts'
import type { Stand } from './stand.ts'

/** An answer of the API, to whoever asked. */
export interface Answered {
  what: string
  /** performance.now() of the request, and of the answer. */
  from: number
  at: number
  /** 0: no answer. */
  status: number
  code: string | undefined
}

interface Knocked {
  login: string
  from: number
  at: number
  /** Of the CONNACK; -1 when the connection was closed without one. */
  returnCode: number
}

/** Looks at a server from all its doors, all the time. */
export interface Lookout extends AsyncDisposable {
  /** Every answer of the API: to the load, and to the requests that the lookout makes itself. */
  answers: Answered[]
  health: Answered[]
  /** Logins over MQTT: a client's, a principal's, and one with a key that nobody has. */
  knocks: Knocked[]
  /** The most that the server has held in memory since `forget`, MiB. */
  memory: { now(): number; highest(): number; forget(): void }
}

export interface LookoutOptions {
  /** A client without a device: only its login is tried. */
  knocker: { clientId: string; clientKey: string }
  /** Asked in turn: whatever the API can do. They must succeed while all is well. */
  requests: { method: string; path: string; body?: unknown; token?: string }[]
}

const ASK_MS = 150
const KNOCK_MS = 250
const HEALTH_MS = 200
const MEMORY_MS = 100

/** From now on whatever is asked through `stand.api` is written down too. */
export function startLookout(stand: Stand, { knocker, requests }: LookoutOptions): Lookout {
  const answers: Answered[] = []
  const health: Answered[] = []
  const knocks: Knocked[] = []
  const stop = new AbortController()
  const pid = stand.server.process.pid as number
  const mqttPort = Number(new URL(stand.mqtt).port)
  stand.api = written(stand.api, answers)

  const nobody = written(httpClient(stand.http, undefined), health)
  const outside = new Map(
    requests.flatMap(({ token }) => (token ? [[token, written(httpClient(stand.http, token), answers)]] : [])),
  )
  let asked = 0
  const ask = async (): Promise<void> => {
    const { method, path, body, token } = requests[asked++ % requests.length] as LookoutOptions['requests'][number]
    const api = token ? (outside.get(token) as Http) : stand.api
    await api.send(method, path, body)
  }

  const knock = async (login: string, username: string, password: string): Promise<void> => {
    const from = performance.now()
    const clientId = login === 'principal' ? 'technician' : username
    const device = await connectDevice({ mqttPort }, { clientId, username, password, keepalive: 10 })
    knocks.push({ login, from, at: performance.now(), returnCode: device.returnCode })
    device.drop()
  }
  let stranger = 0
  const logins: (() => Promise<void>)[] = [
    () => knock('client', knocker.clientId, knocker.clientKey),
    () => knock('principal', 'admin', ADMIN_TOKEN),
    () => knock('stranger', `stranger-${stranger++}`, 'sbk_nobody-has-this-key'),
  ]

  let highest = 0
  /** One after the other, so that an outage does not pile them up. */
  const repeat = async (everyMs: number, work: () => Promise<unknown> | unknown): Promise<void> => {
    while (!stop.signal.aborted) {
      await work()
      await sleep(everyMs, undefined, { signal: stop.signal }).catch(() => undefined)
    }
  }
  const running = [
    // What got no answer is in `answers`, and judged there.
    ...Array.from({ length: 3 }, () => repeat(ASK_MS, () => ask().catch(() => undefined))),
    ...logins.map((login) => repeat(KNOCK_MS, login)),
    repeat(HEALTH_MS, () => nobody.get('/health').catch(() => undefined)),
    repeat(MEMORY_MS, () => {
      if (stand.server.process.exitCode === null) highest = Math.max(highest, memoryOf(pid))
    }),
  ]

  return {
    answers,
    health,
    knocks,
    memory: {
      now: () => memoryOf(pid),
      highest: () => highest,
      forget: () => {
        highest = 0
      },
    },
    async [Symbol.asyncDispose]() {
      stop.abort()
      await Promise.all(running)
    },
  }
}

function written(api: Http, into: Answered[]): Http {
  const send: Http['send'] = async (method, path, body, headers) => {
    const from = performance.now()
    const write = (status: number, code?: string): void => {
      into.push({ what: `${method} ${path}`, from, at: performance.now(), status, code })
    }
    try {
      const answer = await api.send(method, path, body, headers)
      write(answer.status, answer.body?.code)
      return answer
    } catch (error) {
      write(0)
      throw error
    }
  }
  return { send, get: (path) => send('GET', path), post: (path, body, headers) => send('POST', path, body, headers) }
}
