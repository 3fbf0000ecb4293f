import { setTimeout as sleep } from 'node:timers/promises'
import type { Luck } from './luck.ts'
import type { Stand } from './stand.ts'
import type { Work } from './work.ts'

/** A command that was answered 201, or 200 when it was repeated: from then on it is promised. */
export interface Accepted {
  id: string
  key: string
  delivery: 'at_least_once' | 'at_most_once'
  total: number
}

export interface Load {
  accepted: Accepted[]
  /** Requests that were not confirmed and were repeated with the same key. */
  repeated: number
  cancelled: number
  /** Resolves when every command is accepted. */
  done: Promise<void>
}

export interface LoadOptions {
  commands: number
  clientIds: string[]
  zones: string[]
  /** Of the idempotency keys: loads of one stand differ in it. */
  prefix?: string
  /** Callers at once. */
  callers?: number
  /** Between two commands of one caller, ms at most. */
  pauseMs?: number
  thinkMs?: number
  luck: Luck
}

const UNCONFIRMED = [408, 429, 503]

/** A business system: it creates commands one after the other and repeats, with the same key, what was not confirmed. */
export function startLoad(stand: Stand, options: LoadOptions): Load {
  const { luck, callers = 8, pauseMs = 20, thinkMs = 30 } = options
  const load: Load = { accepted: [], repeated: 0, cancelled: 0, done: Promise.resolve() }
  let next = 0

  async function caller(): Promise<void> {
    while (next < options.commands) {
      const number = next++
      await create(number)
      await sleep(luck.between(0, pauseMs))
    }
  }

  async function create(number: number): Promise<void> {
    const key = `${options.prefix ?? 'load'}-${number}`
    const { kind, ...target } = draw()
    // A broadcast is a large part of all there is: were it left to chance, a few of them could be most of it.
    const action = luck.everyNth(kind, 5) ? 'index' : 'print'
    const payload: Work = { thinkMs: luck.between(0, thinkMs), fails: luck.chance(0.05) }
    const body = { ...target, action, payload, priority: luck.between(1, 10) }
    const answer = await untilConfirmed(() => stand.api.post('/commands', body, { 'idempotency-key': key }))
    if (answer.status !== 201 && answer.status !== 200)
      throw new Error(`command ${number}: ${answer.status} ${JSON.stringify(answer.body)}`)
    const { id, delivery, total } = answer.body
    load.accepted.push({ id, key, delivery, total })
    if (!luck.chance(0.05)) return
    await sleep(luck.between(0, 50))
    const cancelled = await untilConfirmed(() =>
      stand.api.post(`/commands/${id}/cancel`, { reason: 'changed our mind' }),
    )
    if (cancelled.status !== 200) throw new Error(`cancel of ${number}: ${cancelled.status}`)
    load.cancelled++
  }

  function draw(): { kind: string } & Record<string, unknown> {
    const drawn = luck.next()
    if (drawn < 0.005) return { kind: 'broadcast', broadcast: true }
    if (drawn < 0.05) return { kind: 'zone', zone: luck.pick(options.zones) }
    return { kind: 'client', clientId: luck.pick(options.clientIds) }
  }

  /** No answer, 503, 408 (nobody read it in time) and 429 (too much waits for that client) mean the same: not confirmed. */
  async function untilConfirmed<T extends { status: number }>(request: () => Promise<T>): Promise<T> {
    for (;;) {
      const answer = await request().catch(() => undefined)
      if (answer && !UNCONFIRMED.includes(answer.status)) return answer
      load.repeated++
      await sleep(50)
    }
  }

  load.done = Promise.all(Array.from({ length: callers }, caller)).then(() => undefined)
  return load
}
