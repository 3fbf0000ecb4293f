import type { ExecutionState } from '../../db/executions.ts'
import type { Target } from '../../schemas/commands.ts'
import { isSettled, STATUSES, type Status } from '../../schemas/executions.ts'
import type { ChangedExecution } from '../executions/ledger.ts'
import { type Counter, createRegistry, type Histogram, type Registry } from './registry.ts'

/** A group commit's rounds, as its batcher counts them. */
export interface BatchMeter {
  /** One round of statements that was committed. */
  round(size: number, seconds: number): void
  /** A round that is tried again, whole or in halves. */
  retry(reason: RetryReason): void
}

const RETRY_REASONS = ['database_down', 'race_lost', 'bad_value'] as const
type RetryReason = (typeof RETRY_REASONS)[number]

/** What is counted on a command's way: nothing here waits or asks. Other parts add what they know to the registry. */
export interface Metrics extends Registry {
  commandCreated(action: string, target: Target['kind']): void
  executionChanged(execution: ChangedExecution, before: ExecutionState, after: ExecutionState): void
  batcher(name: string): BatchMeter
  loginRefused(returnCode: number): void
  /** A message that was acknowledged to the client, and meant nothing. */
  messageDropped(code: string): void
  removed(kind: Removable, rows: number): void
}

/** What retention removes. */
const REMOVABLE = ['commands', 'executions', 'events', 'alerts', 'enrolments', 'audit'] as const
export type Removable = (typeof REMOVABLE)[number]

export interface MetricsDeps {
  /** Distinct actions that get series of their own. */
  maxLabelValues: number
  isRegistered(action: string): boolean
}

/** Seconds, from a claim on the same machine to work that waited for days. */
const STAGE_SECONDS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400,
  604_800,
]
const STATEMENT_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]
const BATCH_ITEMS = [1, 2, 5, 10, 20, 50, 100, 200, 500]

const OUTCOMES = STATUSES.filter(isSettled)

/** Why a login was refused, by the CONNACK's return code [MQTT-3.2.2.3]. */
const REFUSALS: Record<number, string> = {
  2: 'bad_client_id',
  3: 'unavailable',
  4: 'bad_credentials',
  5: 'not_authorized',
}

/** What stands for names that get no series of their own; no id can look like this. */
const UNREGISTERED = '(unregistered)'
export const OTHER = '(other)'

interface ActionCounters {
  created: Record<Target['kind'], Counter>
  settled: Record<Status, Counter>
}

export function createMetrics({ maxLabelValues, isRegistered }: MetricsDeps): Metrics {
  const registry = createRegistry()
  const created = registry.counter('commands_created_total', 'Commands stored.', ['action', 'target'])
  const settled = registry.counter(
    'executions_settled_total',
    'Executions that got an outcome; one that was outcome_unknown counts again when it is decided.',
    ['action', 'outcome'],
  )
  const stage = registry.histogram(
    'execution_stage_seconds',
    "Time between two steps of an execution's way, on PostgreSQL's clock.",
    STAGE_SECONDS,
    ['stage'],
  )
  const stages = { claim: stage('claim'), puback: stage('puback'), start: stage('start'), run: stage('run') }
  const whole = registry.histogram(
    'execution_duration_seconds',
    "Time from a command's creation until its execution was settled, on PostgreSQL's clock.",
    STAGE_SECONDS,
    [],
  )()
  const batchItems = registry.histogram('batch_items', 'Items that shared one round of statements.', BATCH_ITEMS, [
    'batcher',
  ])
  const batchSeconds = registry.histogram('batch_seconds', 'Duration of such a round.', STATEMENT_SECONDS, ['batcher'])
  const batchRetries = registry.counter('batch_retries_total', 'Rounds that were tried again, and why.', [
    'batcher',
    'reason',
  ])
  const refused = registry.counter('mqtt_logins_refused_total', 'MQTT connections refused, and why.', ['reason'])
  const refusals = new Map(Object.entries(REFUSALS).map(([code, reason]) => [Number(code), refused(reason)]))
  const dropped = registry.counter(
    'mqtt_messages_dropped_total',
    'Messages of clients that were acknowledged and dropped, by the code of the answer on replies.',
    ['code'],
  )
  const removed = registry.counter('retention_removed_total', 'Rows that were old enough to go.', ['kind'])
  // All of them, so that each is 0 at the beginning.
  for (const kind of REMOVABLE) removed(kind)

  const countersOf = (label: string): ActionCounters => ({
    created: {
      client: created(label, 'client'),
      zone: created(label, 'zone'),
      broadcast: created(label, 'broadcast'),
    },
    settled: Object.fromEntries(OUTCOMES.map((outcome) => [outcome, settled(label, outcome)])) as Record<
      Status,
      Counter
    >,
  })
  const byAction = new Map([[UNREGISTERED, countersOf(UNREGISTERED)]])

  /** Names come from users: what nobody registered shares one series, and so does what is registered beyond the limit. */
  function ofAction(name: string): ActionCounters {
    const label = isRegistered(name) ? name : UNREGISTERED
    return byAction.get(label) ?? newAction(byAction.size <= maxLabelValues ? label : OTHER)
  }

  function newAction(label: string): ActionCounters {
    const counters = byAction.get(label) ?? countersOf(label)
    byAction.set(label, counters)
    return counters
  }

  return {
    ...registry,

    commandCreated: (action, target) => ofAction(action).created[target].add(),

    executionChanged({ action, createdAt }, before, after) {
      // Several inputs may be folded into one change, so each time that is new is looked at.
      if (after.queuedAt !== before.queuedAt && after.attempt === 1) took(stages.claim, createdAt, after.queuedAt)
      if (after.deliveredAt !== before.deliveredAt) took(stages.puback, after.queuedAt, after.deliveredAt)
      if (after.startedAt !== before.startedAt) took(stages.start, after.deliveredAt, after.startedAt)
      if (after.status === before.status || !isSettled(after.status)) return
      ofAction(action).settled[after.status].add()
      // What a principal or a late report makes of an unknown outcome says nothing about how long the work took.
      if (isSettled(before.status)) return
      took(stages.run, after.startedAt, after.completedAt)
      took(whole, createdAt, after.completedAt)
    },

    batcher(name) {
      const items = batchItems(name)
      const duration = batchSeconds(name)
      const retries = Object.fromEntries(RETRY_REASONS.map((reason) => [reason, batchRetries(name, reason)])) as Record<
        RetryReason,
        Counter
      >
      return {
        round(size, took) {
          items.observe(size)
          duration.observe(took)
        },
        retry: (reason) => retries[reason].add(),
      }
    },

    loginRefused: (returnCode) => refusals.get(returnCode)?.add(),
    messageDropped: (code) => dropped(code).add(),
    removed: (kind, rows) => removed(kind).add(rows),
  }
}

/** Milliseconds in, seconds out. A step that was skipped is not measured, and a clock that was set back is no time. */
function took(histogram: Histogram, from: number | null, to: number | null): void {
  if (from !== null && to !== null) histogram.observe(Math.max(0, to - from) / 1000)
}
