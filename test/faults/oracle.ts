import { isTerminal, STATUSES, type Status } from '../../schemas/executions.ts'
import type { Accepted } from './load.ts'
import type { AcknowledgedReport } from './plain-device.ts'
import type { Effect } from './work.ts'

/** What can be seen from outside once all is quiet. */
export interface Evidence {
  /** Every command that was answered 201. */
  accepted: Accepted[]
  /** The ledger. */
  executions: LedgerExecution[]
  events: LedgerEvent[]
  /** The ids of the commands that are stored, with the key that each was sent with. */
  stored: { id: string; key: string }[]
  /** What the agents' journals remember. */
  journals: JournalEntry[]
  /** Reports that plain devices saw acknowledged. */
  acknowledged: AcknowledgedReport[]
  /** What really happened. */
  effects: Effect[]
  devices: Devices
}

export interface Devices {
  /** Clients without a journal. */
  plain: ReadonlySet<string>
  /** Clients whose memory was taken away. */
  lostMemory: ReadonlySet<string>
  /** Whether a process of agents was killed: only then may an agent not know what it did. */
  agentsWereKilled: boolean
}

export interface LedgerExecution {
  commandId: string
  clientId: string
  status: Status
  attempt: number
  delivery: 'at_least_once' | 'at_most_once'
  errorCode: string | null
}

export interface LedgerEvent {
  id: number
  type: string
  commandId: string
  clientId: string
  attempt: number
  /** The status in a report that moved nothing. */
  reported: string | null
  errorCode: string | null
}

export interface JournalEntry {
  clientId: string
  id: string
  attempt: number
  state: string
  /** The server's PUBACK of the outcome came. */
  reported: boolean
}

/** Every rule answers what breaks it, a line each. */
type Rule = (evidence: Evidence, index: Index) => Iterable<string>

interface Index {
  execution: Map<string, LedgerExecution>
  events: Map<string, LedgerEvent[]>
  effects: Map<string, Effect[]>
  journal: Map<string, JournalEntry[]>
}

const keyOf = (commandId: string, clientId: string): string => `${commandId} ${clientId}`

const TIMER_CODES = ['TIMEOUT', 'START_TIMEOUT']
const LOST_CODES = ['SESSION_LOST', 'HANDOVER_LOST', 'IN_DOUBT', 'NOT_REMEMBERED', 'OUTCOME_UNKNOWN']
const SILENT_CODES = new Set([...TIMER_CODES, 'OUTCOME_UNKNOWN', 'AGENT_INTERRUPTED', 'JOURNAL_INCOMPLETE'])
/** What says that nothing happened. */
const DENIES: ReadonlySet<string> = new Set(['cancelled', 'expired', 'rejected'])

const RULES: Record<string, Rule> = {
  *'an accepted command is stored once, with all its executions, and each is settled'({
    accepted,
    stored,
    executions,
  }) {
    const perCommand = Map.groupBy(executions, ({ commandId }) => commandId)
    const ids = new Set(stored.map(({ id }) => id))
    for (const { id, total } of accepted) {
      if (!ids.has(id)) yield `command ${id} was answered 201 and is not there`
      const found = perCommand.get(id)?.length ?? 0
      if (found !== total) yield `command ${id} has ${found} executions of ${total}`
    }
    for (const { commandId, clientId, status } of executions) {
      if (!isTerminal(status) && status !== 'outcome_unknown') yield `${commandId} ${clientId} is still ${status}`
    }
    const byKey = Map.groupBy(stored, ({ key }) => key)
    for (const [key, found] of byKey) if (found.length > 1) yield `key ${key} made ${found.length} commands`
    const known = new Set(accepted.map(({ key }) => key))
    for (const { id, key } of stored) if (!known.has(key)) yield `command ${id} with key ${key} was never confirmed`
  },

  *'an unknown outcome has a reason that can be seen from outside'({ executions, devices }, { journal, events }) {
    for (const { commandId, clientId, status, errorCode } of executions) {
      if (status !== 'outcome_unknown') continue
      const key = keyOf(commandId, clientId)
      const ended = events.get(key)?.findLast((event) => event.type === 'execution.outcome_unknown')
      const code = errorCode ?? ended?.errorCode ?? ''
      const started = (journal.get(key) ?? []).some((entry) => entry.state === 'outcome_unknown')
      const mayForget = devices.plain.has(clientId) || devices.lostMemory.has(clientId)
      if (started && devices.agentsWereKilled) continue
      if (TIMER_CODES.includes(code)) continue
      if (mayForget && LOST_CODES.includes(code)) continue
      yield `${key} is outcome_unknown (${code}), and nobody can see why`
    }
  },

  *'at least 70 % of the load may be done only once'({ executions }) {
    const once = executions.filter(({ delivery }) => delivery === 'at_most_once').length
    if (executions.length > 0 && once / executions.length < 0.7) yield `only ${once} of ${executions.length} are`
  },

  *'a report whose PUBACK the device saw is in the database'({ journals, acknowledged }, { events, execution }) {
    const told = [
      ...journals
        .filter(({ state, reported }) => reported && OUTCOMES.has(state))
        .map((entry) => ({ ...entry, status: entry.state })),
      ...acknowledged,
    ]
    for (const { clientId, id, attempt, status } of told) {
      const key = keyOf(id, clientId)
      const delivery = execution.get(key)?.delivery
      if (!delivery) continue
      const kept = events.get(key)?.some((event) => saysSo(event, attempt, status, delivery))
      if (!kept) yield `${key}: attempt ${attempt} was acknowledged as ${status}, and no event says so`
    }
  },

  *'nothing happens twice'({ executions, devices }, { effects }) {
    for (const { commandId, clientId, delivery } of executions) {
      const key = keyOf(commandId, clientId)
      const done = effects.get(key) ?? []
      if (delivery === 'at_most_once' && done.length > 1) yield `${key} happened ${done.length} times`
      const attempts = new Set(done.map(({ attempt }) => attempt))
      const forgets = devices.plain.has(clientId) || devices.lostMemory.has(clientId)
      if (!forgets && attempts.size < done.length) yield `${key}: one attempt happened more than once`
    }
  },

  *'what happened was asked for: each attempt was handed over, and a further one was permitted'(
    { effects },
    { events },
  ) {
    for (const { clientId, id, attempt } of effects) {
      const known = events.get(keyOf(id, clientId)) ?? []
      if (!known.some((event) => event.type === 'execution.queued' && event.attempt === attempt))
        yield `${id} ${clientId}: attempt ${attempt} happened and was never handed over`
      if (attempt > 1 && !known.some((event) => PERMITS.has(event.type) && event.attempt === attempt))
        yield `${id} ${clientId}: attempt ${attempt} happened and nobody permitted it`
    }
  },

  *'completed happened, and cancelled, expired and rejected did not'({ executions }, { effects, events }) {
    for (const { commandId, clientId, status } of executions) {
      const key = keyOf(commandId, clientId)
      const done = effects.get(key)?.length ?? 0
      const byHand = events.get(key)?.some((event) => event.type === 'execution.resolved')
      if (status === 'completed' && done === 0 && !byHand) yield `${key} is completed and never happened`
      if (!DENIES.has(status)) continue
      // An attempt that reported its failure is over; one that ended without a word may be meant.
      const unaccounted = (effects.get(key) ?? []).filter(({ attempt }) => {
        const next = events.get(key)?.find((event) => PERMITS.has(event.type) && event.attempt === attempt + 1)
        return !next || SILENT_CODES.has(next.errorCode ?? '')
      })
      if (unaccounted.length > 0) yield `${key} is ${status} and happened`
    }
  },

  *'positions only grow, and each transition appears once per attempt'({ executions }, { events }) {
    for (const { commandId, clientId, attempt, status } of executions) {
      const key = keyOf(commandId, clientId)
      const known = events.get(key) ?? []
      yield* backwards(key, known)
      const last = known.at(-1)
      if (last && last.attempt > attempt) yield `${key} has events of attempt ${last.attempt} and is at ${attempt}`
      const ending = known.findLast((event) => rankOf(event) !== undefined)
      if (ending && ending.type !== `execution.${status}` && !PERMITS.has(ending.type))
        yield `${key} is ${status}, and its last transition is ${ending.type}`
    }
  },
}

const OUTCOMES = new Set(['completed', 'failed', 'rejected', 'cancelled', 'expired', 'outcome_unknown'])
const PERMITS = new Set(['execution.next_attempt', 'execution.retried'])
const FAILURES = new Set(['failed', 'outcome_unknown'])
const RELEASED = 'execution.released'

/** A report is kept as the transition it made, as the next attempt it led to, or as a report that moved nothing. */
function saysSo(event: LedgerEvent, attempt: number, status: string, delivery: LedgerExecution['delivery']): boolean {
  if (event.type === 'execution.next_attempt')
    return event.attempt === attempt + 1 && FAILURES.has(status) && !TIMER_CODES.includes(event.errorCode ?? '')
  if (event.attempt !== attempt) return false
  if (event.type === 'execution.reported') return event.reported === status
  // The last attempt of what may be repeated (rule 5).
  if (event.type === 'execution.failed' && status === 'outcome_unknown') return delivery === 'at_least_once'
  // In doubt, what the client says about one attempt does not settle the command.
  return event.type === `execution.${status}` || (event.type === 'execution.outcome_unknown' && DENIES.has(status))
}

/** The rank of the state that an event made; undefined for one that made none. */
function rankOf({ type }: LedgerEvent): number | undefined {
  const status = type.replace('execution.', '') as Status
  if (!STATUSES.includes(status)) return undefined
  return isTerminal(status) ? STATUSES.indexOf('completed') : STATUSES.indexOf(status)
}

function* backwards(key: string, events: LedgerEvent[]): Iterable<string> {
  let attempt = 1
  let rank = 0
  for (const event of events) {
    if (event.type === RELEASED) {
      if (rank !== STATUSES.indexOf('queued')) yield `${key}: released from ${rank}`
      rank = 0
      continue
    }
    const reached = rankOf(event)
    if (PERMITS.has(event.type)) {
      if (event.attempt !== attempt + 1) yield `${key}: attempt ${event.attempt} follows attempt ${attempt}`
      attempt = event.attempt
      rank = 0
    } else if (reached !== undefined) {
      if (event.attempt !== attempt || reached <= rank)
        yield `${key}: ${event.type} of attempt ${event.attempt} after rank ${rank} of attempt ${attempt}`
      rank = reached
    }
  }
}

/** Judges a run; answers what does not hold, each line under its rule. */
export function judge(evidence: Evidence): string[] {
  const index: Index = {
    execution: new Map(evidence.executions.map((one) => [keyOf(one.commandId, one.clientId), one])),
    events: Map.groupBy(evidence.events, (event) => keyOf(event.commandId, event.clientId)),
    effects: Map.groupBy(evidence.effects, (effect) => keyOf(effect.id, effect.clientId)),
    journal: Map.groupBy(evidence.journals, (entry) => keyOf(entry.id, entry.clientId)),
  }
  return Object.entries(RULES).flatMap(([name, rule]) => {
    const lines = [...rule(evidence, index)].map((line) => `${name}: ${line}`)
    return lines.length > SHOWN ? [...lines.slice(0, SHOWN), `${name}: and ${lines.length - SHOWN} more`] : lines
  })
}

/** Lines per rule: the first say what kind of thing went wrong. */
const SHOWN = 5
