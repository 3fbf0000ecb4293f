import type { Luck } from './luck.ts'
import type { Evidence, JournalEntry } from './oracle.ts'

/** A cancel that was sent while its command was on its way to the device, or already there. */
export interface Race {
  commandId: string
  /** The client whose execution was to be cancelled. */
  clientId: string
  /** The attempt that it raced with. */
  attempt: number
  answer: { cancelled: number; requested: number; tooLate: number }
  /** The wall clock when the answer came, ms: PostgreSQL and the devices have the same one. */
  answeredAt: number
  /** When the ledger heard that it was started and that it was over, if it did. */
  startedAt: number | undefined
  endedAt: number | undefined
}

export const OUTCOMES = ['withdrawn', 'stopped', 'too late'] as const
/** Withdrawn by the server before the device had it, given up by the device before it started, or done all the same. */
export type RaceOutcome = (typeof OUTCOMES)[number]

/** A device hears a cancel at once: what it starts this long after the answer, it was not told of. */
const HEARD_WITHIN_MS = 500
/** Both clocks count milliseconds. */
const ROUNDING_MS = 2

interface Seen {
  status: string
  /** What the journal has of the attempt. */
  entry: JournalEntry | undefined
  /** How often the attempt happened. */
  effects: number
  cancelRequested: boolean
  /** A claim that was not taken back: the device may have it. */
  handedOver: boolean
}

/** Looks at one race; undefined if the ledger does not know it. */
function look(race: Race, evidence: RaceEvidence): Seen | undefined {
  const key = keyOf(race.commandId, race.clientId)
  const execution = evidence.executions.get(key)
  if (!execution) return undefined
  const events = evidence.events.get(key) ?? []
  const of = events.filter(({ attempt }) => attempt === race.attempt)
  return {
    status: execution.status,
    entry: evidence.journal.get(key)?.find(({ attempt }) => attempt === race.attempt),
    effects: (evidence.effects.get(key) ?? []).filter(({ attempt }) => attempt === race.attempt).length,
    cancelRequested: of.some(({ type }) => type === 'execution.cancel_requested'),
    handedOver: isHandedOver(of),
  }
}

/** By the events of one attempt: it was claimed, and the claim was not taken back. */
export function isHandedOver(events: { type: string }[]): boolean {
  const count = (type: string): number => events.filter((event) => event.type === type).length
  return count('execution.queued') > count('execution.released')
}

/** What must be true of a race, whoever won. */
const RULES: Record<string, (seen: Seen, race: Race) => boolean> = {
  'it is cancelled or completed, nothing else': ({ status }) => status === 'cancelled' || status === 'completed',
  'the journal says what the ledger says, or never saw it': ({ status, entry }) =>
    entry === undefined || (entry.state === status && entry.reported),
  'cancelled never happened': ({ status, effects }) => status !== 'cancelled' || effects === 0,
  'completed happened once, and the journal knows it': ({ status, effects, entry }) =>
    status !== 'completed' || (effects === 1 && entry !== undefined),
  'exactly one answer': (_seen, { answer }) => answer.cancelled + answer.requested + answer.tooLate === 1,
  'answered cancelled: nobody was ever handed it': ({ status, entry, cancelRequested, handedOver }, { answer }) =>
    answer.cancelled === 0 || (status === 'cancelled' && !entry && cancelRequested && !handedOver),
  'answered requested: the device decided, or the server took back what it had not sent': (
    { status, entry, cancelRequested, handedOver },
    { answer },
  ) => answer.requested === 0 || (cancelRequested && (handedOver ? entry !== undefined : status === 'cancelled')),
  'answered too late: it was over by then, and nothing was asked': (
    { status, cancelRequested },
    { answer, answeredAt, endedAt },
  ) =>
    answer.tooLate === 0 ||
    (status === 'completed' && !cancelRequested && endedAt !== undefined && endedAt <= answeredAt + ROUNDING_MS),
  'what was asked reached the device': ({ status }, { answer, answeredAt, startedAt }) =>
    answer.requested === 0 ||
    status !== 'completed' ||
    (startedAt !== undefined && startedAt <= answeredAt + HEARD_WITHIN_MS),
}

/** Who won, whatever the ledger makes of it: the device's record decides. */
const outcomeOf = ({ entry, effects }: Seen): RaceOutcome =>
  effects > 0 ? 'too late' : entry ? 'stopped' : 'withdrawn'

interface RaceEvidence {
  executions: Map<string, Evidence['executions'][number]>
  events: Map<string, Evidence['events']>
  journal: Map<string, JournalEntry[]>
  effects: Map<string, Evidence['effects']>
}

/** Judges every race: what does not hold, and how each ended, in their order. */
export function judgeRaces(races: Race[], evidence: Evidence): { wrong: string[]; outcomes: RaceOutcome[] } {
  const index: RaceEvidence = {
    executions: new Map(evidence.executions.map((one) => [keyOf(one.commandId, one.clientId), one])),
    events: Map.groupBy(evidence.events, (event) => keyOf(event.commandId, event.clientId)),
    journal: Map.groupBy(evidence.journals, (entry) => keyOf(entry.id, entry.clientId)),
    effects: Map.groupBy(evidence.effects, (effect) => keyOf(effect.id, effect.clientId)),
  }
  const wrong: string[] = []
  const outcomes = races.map((race) => {
    const seen = look(race, index)
    if (!seen) throw new Error(`no execution of ${race.commandId} ${race.clientId}`)
    for (const [rule, holds] of Object.entries(RULES))
      if (!holds(seen, race)) wrong.push(`${rule}: ${JSON.stringify({ ...race, ...seen })}`)
    return outcomeOf(seen)
  })
  return { wrong, outcomes }
}

const keyOf = (commandId: string, clientId: string): string => `${commandId} ${clientId}`

/** When to send the cancel so that either side may win, ms after some moment that both can be counted from. */
export interface Aim {
  next(): number
  /** The cancel came in time, or too late: the next one is sent a little later, or earlier. */
  learn(inTime: boolean): void
}

const STEP_MIN_MS = 2
const SPREAD_MIN_MS = 4

/** Begins in the middle of what was measured, finds the edge from there in halving steps, and then follows it. */
export function aimAt(measured: number[], luck: Luck): Aim {
  const sorted = measured.toSorted((a, b) => a - b)
  let center = sorted[Math.floor(sorted.length / 2)] as number
  const spread = Math.max(SPREAD_MIN_MS, ((sorted.at(-1) as number) - (sorted[0] as number)) / 2)
  let step = 2 * spread
  let before: boolean | undefined
  return {
    next: () => center + (luck.next() * 2 - 1) * spread,
    learn(inTime) {
      if (before !== undefined && before !== inTime) step = Math.max(STEP_MIN_MS, step / 2)
      before = inTime
      center += inTime ? step : -step
    },
  }
}
