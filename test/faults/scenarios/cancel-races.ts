import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../support/until.ts'
import { startAgents } from '../agents.ts'
import { create } from '../create.ts'
import { judgeStand } from '../evidence.ts'
import { registerActions } from '../fleet.ts'
import type { Accepted } from '../load.ts'
import { createLuck } from '../luck.ts'
import { type Aim, aimAt, isHandedOver, judgeRaces, OUTCOMES, type Race, type RaceOutcome } from '../races.ts'
import { check, scenario } from '../scenario.ts'
import { createStand, type Stand } from '../stand.ts'

/** One way in which a cancel can meet its command. */
interface Way {
  name: string
  /** `wide`: its window is never full; `narrow`: it is, while the device is busy. */
  victim: 'wide' | 'narrow'
  /** Both hands of the victim are full for so long. */
  busyMs: number
  zone?: true
  /** The first attempt has failed, and the cancel meets the second. */
  again?: true
  /** The start is far away: the cancel is aimed at the hand-over, must always be in time, and some have to come after it. */
  atHandover?: true
  /** What really occurs at the edge that it is aimed at. */
  sees: RaceOutcome[]
}

const BUSY_MS = 40
const WAYS: Way[] = [
  { name: 'idle device', victim: 'wide', busyMs: 0, sees: ['too late'] },
  { name: 'busy device', victim: 'wide', busyMs: BUSY_MS, sees: ['stopped', 'too late'] },
  { name: 'full window', victim: 'narrow', busyMs: BUSY_MS, sees: ['withdrawn', 'too late'] },
  { name: 'long queue', victim: 'wide', busyMs: 1200, atHandover: true, sees: ['stopped'] },
  { name: 'zone, idle device', victim: 'wide', busyMs: 0, zone: true, sees: ['too late'] },
  { name: 'zone, busy device', victim: 'wide', busyMs: BUSY_MS, zone: true, sees: ['stopped', 'too late'] },
  { name: 'zone, full window', victim: 'narrow', busyMs: BUSY_MS, zone: true, sees: ['withdrawn', 'too late'] },
  { name: 'zone, long queue', victim: 'wide', busyMs: 1200, zone: true, atHandover: true, sees: ['stopped'] },
  { name: 'next attempt', victim: 'wide', busyMs: 0, again: true, sees: ['withdrawn', 'too late'] },
  // The hand-over waits for the sweeper: so much longer the device has to be busy.
  {
    name: 'next attempt, busy device',
    victim: 'wide',
    busyMs: 3 * BUSY_MS,
    again: true,
    sees: ['stopped', 'too late'],
  },
]
const PROBES = 4
/** Where the first cancels are aimed at a hand-over, ms after the answer. */
const HANDOVER_MS = [0, 12]
/** Of each way, what it is aimed at is seen at least this often; of each outcome in all, `least` times. */
const LEAST_OF_A_WAY = 2
const MORE_ROUNDS = 10

/** A place where races are run one after the other: two devices to be cancelled on, and two that go on undisturbed. */
interface Lane {
  zone: string
  wide: string
  narrow: string
  all: string[]
}

export const cancelRaces = scenario({
  name: 'cancel-races',
  proves:
    "A cancel sent around the hand-over and the start: whoever wins, the journal, the ledger and the cancel's own answer agree.",
  sizes: {
    short: { races: 120, lanes: 8, hosts: 2, least: 15 },
    long: { races: 1000, lanes: 8, hosts: 2, least: 100 },
  },
  async run(sizes, { seed, say }) {
    await using stand = await createStand({ settings: { SWEEP_INTERVAL_SECONDS: 0.03 } })
    const luck = createLuck(seed)
    await stand.startServer()
    const { lanes, stop } = await startLanes(stand, sizes)
    const accepted: Accepted[] = []
    const aims = new Map<Way, Aim>()
    await inLanes(WAYS.length, async (turn, lane) => {
      const way = WAYS[turn] as Way
      aims.set(way, await learn(way, lane))
    })
    const races: { way: Way; race: Race; seemed: RaceOutcome }[] = []
    const raceIn = async (ways: Way[], turns: number): Promise<void> =>
      inLanes(turns, async (turn, lane) => {
        const way = ways[turn % ways.length] as Way
        races.push({ way, ...(await run(way, lane)) })
      })
    await raceIn(WAYS, sizes.races)
    // A dozen races of a way may all end on one side of its edge.
    for (let more = 0; more < MORE_ROUNDS; more++) {
      const unseen = WAYS.filter((way) => way.sees.some((outcome) => seemedSo(way, outcome) < LEAST_OF_A_WAY))
      if (unseen.length > 0) await raceIn(unseen, unseen.length * LEAST_OF_A_WAY)
    }
    await stand.settled()
    await stop()
    let outcomes: RaceOutcome[] = []
    const judged = await judgeStand(stand, {
      load: { accepted },
      devices: { plain: new Set(), lostMemory: new Set(), agentsWereKilled: false },
      also(evidence) {
        const seen = judgeRaces(
          races.map(({ race }) => race),
          evidence,
        )
        outcomes = seen.outcomes
        return seen.wrong.slice(0, 12)
      },
    })
    const answers = (answer: keyof Race['answer']): number =>
      races.reduce((sum, { race }) => sum + race.answer[answer], 0)
    const total = Object.fromEntries(OUTCOMES.map((one) => [one, outcomes.filter((seen) => seen === one).length]))
    for (const way of WAYS) {
      const ended = races.flatMap((one, index) => (one.way === way ? [outcomes[index] as RaceOutcome] : []))
      const count = (outcome: RaceOutcome): number => ended.filter((one) => one === outcome).length
      say(`${way.name}: ${OUTCOMES.map((outcome) => `${count(outcome)} ${outcome}`).join(', ')}`)
      const missed = way.sees.filter((outcome) => count(outcome) < LEAST_OF_A_WAY)
      check(missed.length === 0, `${way.name}: ${missed.join(' and ')} fewer than ${LEAST_OF_A_WAY} times`)
      check(!way.atHandover || count('too late') === 0, `${way.name}: a cancel was too late for a start far away`)
    }
    for (const outcome of OUTCOMES)
      check((total[outcome] as number) >= sizes.least, `${outcome} fewer than ${sizes.least} times: ${total[outcome]}`)
    return {
      races: races.length,
      ...total,
      'answered cancelled': answers('cancelled'),
      'answered requested': answers('requested'),
      'answered too late': answers('tooLate'),
      executions: judged.executions,
      effects: judged.effects,
    }

    /** Turns, each in the next lane that is free. */
    async function inLanes(turns: number, take: (turn: number, lane: Lane) => Promise<void>): Promise<void> {
      let next = 0
      await Promise.all(
        lanes.map(async (lane) => {
          while (next < turns) await take(next++, lane)
        }),
      )
    }

    /** How long it takes to the edge that the way is aimed at, measured on commands that nobody cancels. */
    async function learn(way: Way, lane: Lane): Promise<Aim> {
      if (way.atHandover) return aimAt(HANDOVER_MS, luck)
      const measured: number[] = []
      for (let probe = 0; probe < PROBES; probe++) {
        const { commandId, anchor } = await send(way, lane)
        const { queuedAt, startedAt } = await ended(commandId, lane[way.victim])
        measured.push(((way.sees.includes('withdrawn') ? queuedAt : startedAt) as number) - anchor)
      }
      return aimAt(measured, luck)
    }

    function seemedSo(way: Way, outcome: RaceOutcome): number {
      return races.filter((one) => one.way === way && one.seemed === outcome).length
    }

    async function run(way: Way, lane: Lane): Promise<{ race: Race; seemed: RaceOutcome }> {
      const aim = aims.get(way) as Aim
      const clientId = lane[way.victim]
      const { commandId, anchor } = await send(way, lane)
      await sleep(Math.max(0, anchor + aim.next() - now()))
      const { status, body } = await stand.api.post(`/commands/${commandId}/cancel`, {
        reason: 'changed our mind',
        clientIds: [clientId],
      })
      const answeredAt = now()
      if (status !== 200) throw new Error(`cancel: ${status} ${JSON.stringify(body)}`)
      const { status: end, startedAt, endedAt } = await ended(commandId, clientId)
      const attempt = way.again ? 2 : 1
      const seemed =
        end !== 'cancelled' ? 'too late' : (await wasHandedOver(commandId, clientId, attempt)) ? 'stopped' : 'withdrawn'
      aim.learn(way.atHandover ? seemed === 'withdrawn' : end === 'cancelled')
      return {
        race: { commandId, clientId, attempt, answer: body, answeredAt, startedAt, endedAt },
        seemed,
      }
    }

    /** Sends the command as far as the edge; answers the moment from which the cancel is timed. */
    async function send(way: Way, lane: Lane): Promise<{ commandId: string; anchor: number }> {
      const clientId = lane[way.victim]
      if (!way.again) await keepBusy(clientId, way.busyMs)
      const { id } = await create(stand, accepted, {
        ...(way.zone ? { zone: lane.zone } : { clientId }),
        action: way.again ? 'index' : 'print',
        payload: { thinkMs: 0, fails: false, ...(way.again ? { failures: 1 } : {}) },
      })
      if (!way.again) return { commandId: id, anchor: now() }
      const anchor = await nextAttemptAt(id)
      if (way.busyMs > 0) await keepBusy(clientId, Math.max(0, anchor - now()) + way.busyMs)
      return { commandId: id, anchor }
    }

    /** As many commands as the device has hands. */
    async function keepBusy(clientId: string, thinkMs: number): Promise<void> {
      if (thinkMs === 0) return
      const filler = { clientId, action: 'print', payload: { thinkMs, fails: false } }
      await Promise.all([create(stand, accepted, filler), create(stand, accepted, filler)])
    }

    async function nextAttemptAt(commandId: string): Promise<number> {
      const event = await until(async () => {
        const { body } = await stand.api.get(`/commands/${commandId}/timeline`)
        return body.items.find(({ type }: { type: string }) => type === 'execution.next_attempt')
      }, 'the next attempt')
      return new Date(event.data.notBefore).getTime()
    }

    async function wasHandedOver(commandId: string, clientId: string, attempt: number): Promise<boolean> {
      const { body } = await stand.api.get(`/commands/${commandId}/timeline`)
      const events: { clientId?: string; attempt?: number; type: string }[] = body.items
      return isHandedOver(events.filter((event) => event.clientId === clientId && event.attempt === attempt))
    }

    async function ended(commandId: string, clientId: string) {
      await stand.api.get(`/commands/${commandId}?wait=30`)
      const { body } = await stand.api.get(`/commands/${commandId}/executions`)
      const found = body.items.find((execution: { clientId: string }) => execution.clientId === clientId)
      const at = (time: string | undefined): number | undefined => (time ? new Date(time).getTime() : undefined)
      return {
        status: found.status as string,
        queuedAt: at(found.queuedAt),
        startedAt: at(found.startedAt),
        endedAt: at(found.completedAt),
      }
    }
  },
})

const now = (): number => performance.timeOrigin + performance.now()

/** Each lane has a zone of four; its agents are spread over the processes. */
async function startLanes(
  stand: Stand,
  sizes: { lanes: number; hosts: number },
): Promise<{ lanes: Lane[]; stop(): Promise<void> }> {
  await registerActions(stand)
  const lanes = Array.from({ length: sizes.lanes }, (_, index) => {
    const [wide, narrow, ...others] = ['wide', 'narrow', 'third', 'fourth'].map((name) => `${name}-${index}`)
    return { zone: `lane-${index}`, wide, narrow, all: [wide, narrow, ...others] } as Lane
  })
  const devices: { id: string; clientKey: string }[] = []
  for (const { zone, narrow, all } of lanes) {
    for (const id of all) {
      const clientKey = await stand.register(id, { zones: [zone], ...(id === narrow ? { maxInFlight: 2 } : {}) })
      devices.push({ id, clientKey })
    }
  }
  const directory = join(stand.directory, 'devices')
  const hosts = await Promise.all(
    Array.from({ length: sizes.hosts }, async (_, host) =>
      stand.use(
        await startAgents({
          url: stand.mqtt,
          directory,
          devices: devices.filter((_device, index) => index % sizes.hosts === host),
        }),
      ),
    ),
  )
  return {
    lanes,
    stop: async () => {
      await Promise.all(hosts.map((host) => host.stop()))
    },
  }
}
