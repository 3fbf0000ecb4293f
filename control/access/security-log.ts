import type { Logger } from 'pino'
import { type Db, isDatabaseDown } from '../../db/connect.ts'
import { type NoticedEvents, storeSecurityEvents } from '../../db/security-events.ts'
import { SECURITY_EVENTS, type SecurityEventKind } from '../../schemas/security-events.ts'
import type { Registry } from '../metrics/registry.ts'
import { presentable } from './presentable.ts'

/** Something that a guard noticed. `detail` says what, in words; a secret in it is not kept. */
export interface Noticed {
  kind: SecurityEventKind
  /** Who it is told apart by: a client's id, a principal's name, else the address. */
  subject: string
  principal?: string
  clientId?: string
  address?: string
  detail: string
}

/** Where the doors say what looks like an attack. */
export interface SecurityLog {
  /** Never waits and never throws. */
  note(noticed: Noticed): void
  /** Occurrences that could not be kept. */
  dropped(): number
  /** Stores what is noted, if the database answers. */
  stop(): Promise<void>
}

/** A flood is counted in memory and written so often at most. */
const WRITE_EVERY_MS = 250
const MINUTE_MS = 60_000
const TOO_MANY_TO_TELL = '*'

interface Waiting extends Omit<NoticedEvents, 'firstAgoMs' | 'lastAgoMs'> {
  firstAt: number
  lastAt: number
}

export interface SecurityLogDeps {
  db: Db
  log: Logger
  metrics: Registry
  subjectsPerMinute: number
  /** Events that wait at most. */
  backlog: number
}

export function createSecurityLog(deps: SecurityLogDeps): SecurityLog {
  const noticed = deps.metrics.counter('security_events_total', 'What looked like an attack.', ['kind'])
  let waiting = new Map<string, Waiting>()
  /** The subjects of each kind that were told apart in this minute: an attacker may invent as many as he likes. */
  let subjects = new Map<SecurityEventKind, Set<string>>()
  let minuteBegan = performance.now()
  let timer: NodeJS.Timeout | undefined
  let writing: Promise<void> = Promise.resolve()
  let dropped = 0
  deps.metrics.observed(
    'counter',
    'security_events_dropped_total',
    'Security events that could not be kept.',
    () => dropped,
  )

  function subjectOf(kind: SecurityEventKind, subject: string): string {
    if (performance.now() - minuteBegan > MINUTE_MS) {
      subjects = new Map()
      minuteBegan = performance.now()
    }
    const known = subjects.get(kind) ?? new Set()
    subjects.set(kind, known)
    if (known.has(subject)) return subject
    if (known.size >= deps.subjectsPerMinute) return TOO_MANY_TO_TELL
    known.add(subject)
    return subject
  }

  function add(event: Waiting): void {
    const key = `${event.kind} ${event.subject}`
    const known = waiting.get(key)
    if (known) {
      known.count += event.count
      known.firstAt = Math.min(known.firstAt, event.firstAt)
      known.lastAt = Math.max(known.lastAt, event.lastAt)
    } else if (waiting.size < deps.backlog) {
      waiting.set(key, event)
    } else {
      dropped += event.count
    }
  }

  function schedule(): void {
    timer ??= setTimeout(() => {
      timer = undefined
      writing = write()
    }, WRITE_EVERY_MS).unref()
  }

  async function write(): Promise<void> {
    const events = [...waiting.values()]
    waiting = new Map()
    if (events.length === 0) return
    const now = performance.now()
    const aged = events.map(({ firstAt, lastAt, ...event }) => ({
      ...event,
      firstAgoMs: now - firstAt,
      lastAgoMs: now - lastAt,
    }))
    try {
      await storeSecurityEvents(deps.db, aged)
    } catch (error) {
      if (isDatabaseDown(error)) {
        const before = dropped
        for (const event of events) add(event)
        if (dropped > before) deps.log.warn({ dropped }, 'security events are dropped while the database is down')
        schedule()
      } else {
        dropped += events.reduce((sum, { count }) => sum + count, 0)
        deps.log.error({ err: error, dropped }, 'security events could not be stored')
      }
    }
  }

  return {
    note({ kind, subject, principal, clientId, address, detail }) {
      const at = performance.now()
      noticed(kind).add()
      add({
        kind,
        severity: SECURITY_EVENTS[kind],
        subject: subjectOf(kind, presentable(subject, 100)),
        principal: principal ?? null,
        clientId: clientId === undefined ? null : presentable(clientId, 100),
        address: address ?? null,
        detail: presentable(detail, 500),
        count: 1,
        firstAt: at,
        lastAt: at,
      })
      schedule()
    },
    dropped: () => dropped,
    async stop() {
      clearTimeout(timer)
      await writing
      await write()
      clearTimeout(timer)
    },
  }
}
