import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { until } from '../../support/until.ts'
import { create } from '../create.ts'
import { judgeStand } from '../evidence.ts'
import { falseClock, lookAtClocks, noFalseClocks, type Offset, settableClock } from '../false-clock.ts'
import { type Fleet, startFleet } from '../fleet.ts'
import { clientsOf } from '../host-kills.ts'
import type { Accepted } from '../load.ts'
import { createLuck } from '../luck.ts'
import type { Evidence } from '../oracle.ts'
import { check, NotRun, scenario } from '../scenario.ts'
import { createStand, type Stand } from '../stand.ts'
import { untilItHappens, type Work } from '../work.ts'

/** The server's clock in its lives while every agent is away, and in those while every agent is busy. */
const SERVER_ALONE: Offset[] = ['+1y', '-1h', '+0']
const SERVER_BUSY: Offset[] = ['+1h', '-1y']
/** Each process of agents has one of these clocks; that of a last one is set while it runs, once in each of the busy lives. */
const AGENTS: Offset[] = ['+1y', '-1h', '-1y']
const SET_TO: Offset[] = ['-1y', '+1h']

const SECONDS: Record<string, number> = { h: 3600, y: 365 * 86_400 }
/** Handlers that an agent runs at once. */
const CONCURRENCY = 2
const BUSY_MS = 3500
const DOOMED_SECONDS = 1
const TIMELY_SECONDS = 60
/** What the server says of its times: PostgreSQL's, so as far off as that is, and a request takes its time. */
const RIGHT_WITHIN_MS = 30_000
const BRIEF: Work = { thinkMs: 0, fails: false }

interface Sent {
  /** By client, in the order in which they were created. */
  inOrder: Map<string, string[]>
  /** Too late before it can start, wherever it waits. */
  doomed: string[]
  timely: string[]
}

export const clocks = scenario({
  name: 'clocks',
  proves:
    'Wall clocks an hour and a year ahead and behind, of the server and of devices, and set while they run: nothing runs that has expired, nothing is refused that has not, the oldest goes first, and each outcome is as with right clocks.',
  sizes: {
    short: { agentsEach: 3, queued: 5, rounds: 1 },
    long: { agentsEach: 20, queued: 8, rounds: 20 },
  },
  async run(sizes, { seed, say }) {
    const missing = noFalseClocks()
    if (missing) throw new NotRun(missing)
    for (const offset of new Set([...SERVER_ALONE, ...SERVER_BUSY])) checkClock(offset)
    await using stand = await createStand()
    const luck = createLuck(seed)
    const accepted: Accepted[] = []
    const sent: Sent = { inOrder: new Map(), doomed: [], timely: [] }
    const put = async (clientId: string, work: Work, ttlSeconds: number): Promise<string> => {
      const body = { clientId, action: luck.chance(0.9) ? 'print' : 'index', payload: work, ttlSeconds }
      const { id } = await create(stand, accepted, body)
      return id
    }

    // Every agent is away while the server lives with one clock after the other.
    await stand.startServer({ env: falseClock(SERVER_ALONE[0] as Offset) })
    const set = settableClock(stand.directory, 'of-a-device')
    const envs = [...AGENTS.map(falseClock), set.env]
    const fleet = await startFleet(
      stand,
      { agents: envs.length * sizes.agentsEach, hosts: envs.length, plain: 0 },
      { env: (host) => envs[host] as Record<string, string>, agents: { reconnect: { minMs: 50, maxMs: 300 } } },
    )
    await Promise.all(fleet.hosts.map((host) => host.stop()))
    for (const [life, offset] of SERVER_ALONE.entries()) {
      if (life > 0) await restartServer(stand, offset)
      await Promise.all(
        fleet.clientIds.map(async (clientId) => {
          const known = sent.inOrder.get(clientId) ?? []
          for (let left = sizes.queued; left > 0; left--) known.push(await put(clientId, BRIEF, 3600))
          sent.inOrder.set(clientId, known)
          sent.doomed.push(await put(clientId, BRIEF, DOOMED_SECONDS))
        }),
      )
      await checkTimes(stand, offset, accepted.at(-1) as Accepted)
    }
    await untilIn(stand, sent.doomed, 'expired')
    await fleet.restart()
    await untilItHappens(stand.directory, [...sent.inOrder.values()].flat())
    say(
      `${[...sent.inOrder.values()].flat().length} queued in ${SERVER_ALONE.length} lives of the server, then run in order`,
    )

    // Every agent is there, and busy: what waits in its journal expires there, or does not.
    for (let round = 0; round < sizes.rounds; round++) {
      for (const [life, offset] of SERVER_BUSY.entries()) {
        await restartServer(stand, offset)
        set.set(SET_TO[life] as Offset)
        const sentNow = await Promise.all(fleet.clientIds.map((clientId) => whileBusy(stand, accepted, put, clientId)))
        const doomed = sentNow.flatMap((one) => one.doomed)
        const timely = sentNow.flatMap((one) => one.timely)
        await untilIn(stand, doomed, 'expired')
        await untilItHappens(stand.directory, timely)
        for (const [host, clientId] of firstOfEach(fleet).entries())
          checkDevice(stand, clientId, AGENTS[host] ?? (SET_TO[life] as Offset))
        sent.doomed.push(...doomed)
        sent.timely.push(...timely)
      }
    }
    await stand.settled()
    await fleet.stop()
    const judged = await judgeStand(stand, {
      load: { accepted },
      devices: { plain: new Set(), lostMemory: new Set(), agentsWereKilled: false },
      also: (evidence) => asWithRightClocks(sent, evidence),
    })
    say(
      `agents at ${AGENTS.join(', ')} and one set to ${SET_TO.join(', ')}; the server at ${[...SERVER_ALONE, ...SERVER_BUSY].join(', ')}`,
    )
    return {
      commands: accepted.length,
      ...judged,
      'in order': [...sent.inOrder.values()].flat().length,
      expired: sent.doomed.length,
      'in time': sent.timely.length,
    }
  },
})

const secondsOf = (offset: Offset): number => Number.parseInt(offset, 10) * (SECONDS[offset.at(-1) as string] ?? 0)

/** A year may have a day more. */
const isAbout = (seconds: number, offset: Offset): boolean =>
  Math.abs(seconds - secondsOf(offset)) < (offset.endsWith('y') ? 2 * 86_400 : 120)

/** That a process really has a false wall clock, and a right monotonic one. */
function checkClock(offset: Offset): void {
  const { wall, monotonic, uptime } = lookAtClocks(falseClock(offset))
  check(isAbout(wall, offset), `${offset} is ${Math.round(wall)} s`)
  check(Math.abs(monotonic) < 60 && Math.abs(uptime) < 60, `${offset}: its monotonic clock is ${monotonic} s off`)
}

const firstOfEach = (fleet: Fleet): string[] => fleet.hosts.map((_, host) => clientsOf(fleet, host)[0] as string)

/** That an agent really has: it writes the time of day into its journal, for people. */
function checkDevice(stand: Stand, clientId: string, offset: Offset): void {
  const journal = new DatabaseSync(join(stand.directory, 'devices', `${clientId}.sqlite`), { readOnly: true })
  const last = journal.prepare('select received_at from attempts order by rowid desc limit 1').get()?.received_at
  journal.close()
  const off = (Date.parse(String(last)) - Date.now()) / 1000
  check(isAbout(off, offset), `${clientId} is to be at ${offset} and is ${Math.round(off)} s off`)
}

async function restartServer(stand: Stand, offset: Offset): Promise<void> {
  await stand.server.kill()
  await stand.startServer({ env: falseClock(offset) })
}

/** The times that the API gives are PostgreSQL's. */
async function checkTimes(stand: Stand, offset: Offset, { id }: Accepted): Promise<void> {
  const { body } = await stand.api.get(`/commands/${id}`)
  const off = Math.abs(Date.parse(body.createdAt) - Date.now())
  check(off < RIGHT_WITHIN_MS, `with the server at ${offset} a command was created ${off} ms from now`)
}

/** Both handlers are in the middle; what comes now waits in the agent's journal until it is too late, or until they end. */
async function whileBusy(
  stand: Stand,
  accepted: Accepted[],
  put: (clientId: string, work: Work, ttlSeconds: number) => Promise<string>,
  clientId: string,
): Promise<{ doomed: string[]; timely: string[] }> {
  const busy = await Promise.all(
    Array.from({ length: CONCURRENCY }, () =>
      create(stand, accepted, { clientId, action: 'print', payload: { thinkMs: BUSY_MS, fails: false } }),
    ),
  )
  await untilItHappens(
    stand.directory,
    busy.map(({ id }) => id),
  )
  const doomed = await Promise.all([1, 2].map(() => put(clientId, BRIEF, DOOMED_SECONDS)))
  const timely = await Promise.all([1, 2].map(() => put(clientId, BRIEF, TIMELY_SECONDS)))
  return { doomed, timely: [...busy.map(({ id }) => id), ...timely] }
}

async function untilIn(stand: Stand, ids: string[], status: string): Promise<void> {
  const count = 'select count(*)::integer as count from executions where command_id = any($1::uuid[]) and status = $2'
  const there = async (): Promise<boolean> =>
    (await stand.sql<{ count: number }>(count, [ids, status]))[0]?.count === ids.length
  // What is not by then, the judge names.
  await until(there, status, 30_000).catch(() => undefined)
}

function* asWithRightClocks({ inOrder, doomed, timely }: Sent, { executions, effects }: Evidence): Iterable<string> {
  const status = new Map(executions.map((one) => [one.commandId, one.status]))
  const ran = new Set(effects.map(({ id }) => id))
  for (const id of doomed) {
    if (ran.has(id)) yield `${id} ran after its expiry`
    if (status.get(id) !== 'expired') yield `${id} had expired and is ${status.get(id)}`
  }
  for (const id of [...timely, ...[...inOrder.values()].flat()])
    if (status.get(id) !== 'completed') yield `${id} had not expired and is ${status.get(id)}`
  const happened = Map.groupBy(effects, ({ clientId }) => clientId)
  for (const [clientId, created] of inOrder) {
    const order = new Set(created)
    const ranInOrder = (happened.get(clientId) ?? []).map(({ id }) => id).filter((id) => order.has(id))
    if (ranInOrder.join() !== created.join()) yield `${clientId} did not begin with the oldest: ${ranInOrder}`
  }
}
