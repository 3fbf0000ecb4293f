import { until } from '../support/until.ts'
import type { Answered } from './lookout.ts'
import type { Scene, Suffered } from './outage-scene.ts'
import { OUTAGES, type Outage } from './outages.ts'
import type { Stand } from './stand.ts'

/** An answer comes within DATABASE_TIMEOUT_SECONDS, what the slowest takes on this machine while all is well, and this. */
const GRACE_MS = 1000
/** Once PostgreSQL is back, what waited is through and new work flows. */
const DRAINS_WITHIN_MS = 10_000
/** What the server may grow by during an outage: what a heap takes until it is next collected, and no more the longer it lasts. */
const MEMORY_MIB = 128
/** What was committed just before is still on its way out. */
const STILL_ON_ITS_WAY_MS = 500
/** Lines per kind: the first say what went wrong. */
const SHOWN = 4

/** What must not be, whatever happens to PostgreSQL. */
export function faultsOf(scene: Scene, outages: Suffered[]): string[] {
  const { exitCode, signalCode } = scene.stand.server.process
  const ended = exitCode !== null || signalCode !== null ? [`the server ended: ${exitCode ?? signalCode}`] : []
  const kinds: Iterable<string>[] = [
    lies(scene, slowestInPeace(scene, outages)),
    scene.device.faults,
    ...outages.flatMap((one) => [lapses(one, scene), silence(one, scene)]),
  ]
  return [ended, ...kinds].flatMap((kind) => {
    const lines = [...kind]
    return lines.length > SHOWN ? [...lines.slice(0, SHOWN), `and ${lines.length - SHOWN} more`] : lines
  })
}

/** The answers of a run that were 503 on account of this outage. */
export const unavailable = ({ lookout }: Scene, { from, back }: Suffered): Answered[] =>
  lookout.answers.filter(({ status, at }) => status === 503 && at >= from && at <= back + GRACE_MS)

const during = ({ from, end }: Suffered, one: { from: number; at: number }): boolean =>
  one.from >= from && one.at <= end

/** Of the answers that no outage and nothing left over from one can have held up, ms. */
function slowestInPeace({ lookout }: Scene, outages: Suffered[]): number {
  const inPeace = ({ from, at }: Answered): boolean =>
    outages.every(({ begun, back, drainedMs }) => at < begun || from > back + drainedMs)
  return Math.max(0, ...lookout.answers.filter(inPeace).map(({ from, at }) => at - from))
}

/** Every door answers in time, the truth or that it cannot tell. */
function* lies({ lookout, sizes }: Scene, slowestMs: number): Iterable<string> {
  const limit = sizes.timeout * 1000 + slowestMs + GRACE_MS
  const doors = [
    ...[...lookout.answers, ...lookout.health].map((one) => ({
      ...one,
      answer: `${one.status} ${one.code ?? ''}`,
      honest: (one.status >= 200 && one.status < 300) || (one.status === 503 && (one.code ?? DOWN) === DOWN),
    })),
    ...lookout.knocks.map((one) => ({
      ...one,
      what: `the login of a ${one.login}`,
      answer: String(one.returnCode),
      honest: one.returnCode === 3 || one.returnCode === (one.login === 'stranger' ? 4 : 0),
    })),
  ]
  for (const { what, answer, honest, from, at } of doors) {
    const took = Math.round(at - from)
    if (!honest || took > limit) yield `${what} was answered ${answer} after ${took} ms`
  }
}

const DOWN = 'UNAVAILABLE'

/** What has to happen in an outage and after it, and did not. */
function* lapses(one: Suffered, scene: Scene): Iterable<string> {
  const { name, from, back, drainedMs, newWorkMs, grownMiB, restarted } = one
  const outage: Outage = OUTAGES[name]
  if (unavailable(scene, one).length === 0) yield `${name}: nobody was answered 503`
  if (drainedMs > DRAINS_WITHIN_MS) yield `${name}: drained only after ${Math.round(drainedMs)} ms`
  if (newWorkMs > DRAINS_WITHIN_MS) yield `${name}: new work only after ${Math.round(newWorkMs)} ms`
  if (grownMiB > MEMORY_MIB) yield `${name}: the server grew by ${Math.round(grownMiB)} MiB`
  if (outage.restarts && !restarted) yield `${name}: PostgreSQL did not start anew`
  const noticed = scene.lookout.health.some(({ status, at }) => status === 503 && at > from && at < back + GRACE_MS)
  if (back - from > GRACE_MS && !noticed) yield `${name}: /health never said 503`
}

/** While nothing at all can be committed or read, nobody is told anything else. */
function* silence(one: Suffered, { lookout, device }: Scene): Iterable<string> {
  const outage: Outage = OUTAGES[one.name]
  if (!outage.total) return
  for (const { what, status, ...times } of [...lookout.answers, ...lookout.health])
    if (status !== 503 && during(one, times)) yield `${one.name}: ${what} was answered ${status} meanwhile`
  const refused = lookout.knocks.filter((knock) => during(one, knock))
  // A principal that was known a moment ago is let in: it needs nothing from PostgreSQL.
  for (const { login, returnCode } of refused)
    if (login !== 'principal' && returnCode !== 3) yield `${one.name}: a ${login} was answered ${returnCode} meanwhile`
  if (!refused.some(({ returnCode }) => returnCode === 3)) yield `${one.name}: no login was refused`
  const early = device.pubacks.filter((at) => at > one.from + STILL_ON_ITS_WAY_MS && at < one.end)
  if (early.length > 0) yield `${one.name}: ${early.length} PUBACKs while nothing could be committed`
}

/** What the pipelining device was promised is stored, in the order in which it was said. */
export async function disorderOf({ stand, device }: Scene): Promise<string[]> {
  const event = await stand.sql<{ number: number }>(
    `select (data -> 'event' ->> 'seq')::integer as number from events
      where type = 'client.event' and client_id = $1 order by id`,
    [device.clientId],
  )
  // A statement without an answer may have been carried out, and is repeated: what counts is the first time.
  const progress = await stand.sql<{ number: number }>(
    `select (data -> 'progress' ->> 'done')::integer as number from events
      where command_id = $1 and data -> 'progress' is not null group by 1 order by min(id)`,
    [device.commandId],
  )
  return Object.entries({ event, progress }).flatMap(([kind, rows]) => {
    const kept = rows.map(({ number }) => number)
    const there = new Set(kept)
    const lost = device.confirmed[kind as 'event' | 'progress'].filter((number) => !there.has(number))
    const at = kept.findIndex((number, index) => index > 0 && number <= (kept[index - 1] as number))
    return [
      ...(lost.length > 0 ? [`${kind}: ${lost.length} were acknowledged and are not there: ${lost.slice(0, 5)}`] : []),
      ...(at > 0 ? [`${kind} ${kept[at]} is stored after ${kept[at - 1]}`] : []),
    ]
  })
}

/** Whoever is shown online is there, and everybody else is shown offline. */
export async function falsePresence(stand: Stand, connected: string[]): Promise<string[]> {
  const there = new Set(connected)
  const wrong = async (): Promise<string[]> => {
    const shown = await stand.sql<{ id: string }>('select id from clients where session_epoch is not null')
    return [...new Set(shown.map(({ id }) => id)).symmetricDifference(there)]
  }
  await until(async () => (await wrong()).length === 0, 'presence', DRAINS_WITHIN_MS).catch(() => undefined)
  return (await wrong()).map((id) => `${id} is ${there.has(id) ? 'there and shown offline' : 'gone and shown online'}`)
}
