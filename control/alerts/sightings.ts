import type { Doubt, KnownClient, TellingEvent } from '../../db/alert-sources.ts'
import type { FeedBlocker } from '../../db/events.ts'
import type { ClientSlice, Over } from '../../db/lost-clients.ts'
import type { UntoldEvents } from '../../db/security-events.ts'
import type { Target } from '../../schemas/commands.ts'
import { Id } from '../../schemas/ids.ts'
import { type Ending, type Seen, SHOWN, type Sighting } from './fold.ts'
import type { Refusal } from './refusals.ts'

// From facts to what is said of them, kind by kind. Messages are for people on a shift: what it is, and what to do.

/** Commands whose number of unknown outcomes may have changed. */
export const doubtedCommands = (events: TellingEvent[]): string[] => [
  ...new Set(
    events.flatMap(({ type, commandId, doubted }) =>
      commandId !== null && (doubted || type === 'execution.outcome_unknown') ? commandId : [],
    ),
  ),
]

export function seeDoubts(commandIds: string[], doubts: Doubt[], events: TellingEvent[]): Seen[] {
  const lastAt = new Map(
    events.flatMap(({ type, commandId, at }) => (type === 'execution.outcome_unknown' ? [[commandId, at]] : [])),
  )
  const found = new Map(doubts.map((doubt) => [doubt.commandId, doubt]))
  return commandIds.map((subject) => {
    const doubt = found.get(subject)
    const kind = 'outcome_unknown'
    if (!doubt) return { kind, subject, because: 'no outcome is unknown any more', at: null }
    const { action, target, total, unknown, clientIds } = doubt
    return {
      kind,
      subject,
      clientId: target.kind === 'client' ? target.clientId : null,
      commandId: subject,
      count: unknown,
      message: `Nobody can tell whether ${action} happened ${placeOf(target, unknown, total, clientIds)}. Look there, then resolve it.`,
      details: { action, clients: clientIds },
      at: lastAt.get(subject) ?? null,
    }
  })
}

function placeOf(target: Target, unknown: number, total: number, clientIds: string[]): string {
  if (target.kind === 'client') return `on ${target.clientId}`
  const names = clientIds.join(', ') + (unknown > clientIds.length ? ', …' : '')
  return `on ${unknown} of ${total} clients${target.kind === 'zone' ? ` of zone ${target.zone}` : ''}: ${names}`
}

/** One sighting per client, however many of its commands failed. */
export function seeFailures(events: TellingEvent[]): Sighting[] {
  const failures = events.filter(({ type }) => type === 'execution.failed' || type === 'execution.rejected')
  return [...Map.groupBy(failures, ({ clientId }) => clientId)].map(([clientId, ofClient]) => {
    const last = ofClient.at(-1) as TellingEvent
    const error = last.error ?? { code: 'NONE', message: 'no reason was given' }
    const verb =
      last.type === 'execution.rejected' ? `${clientId} rejected a command` : `A command failed on ${clientId}`
    return {
      kind: 'command_failed',
      subject: clientId,
      clientId,
      commandId: null,
      count: ofClient.length,
      message: `${verb}: ${error.code}: ${error.message}`,
      details: {
        error: { ...error },
        commands: ofClient
          .map(({ commandId }) => commandId)
          .reverse()
          .slice(0, SHOWN),
      },
      at: last.at,
    }
  })
}

const OVER: Record<Exclude<Over, 'at_qos_0'>, string> = {
  deleted: 'the client was deleted',
  back: 'the client is back',
  nothing_waits: 'nothing waits for the client any more',
}

/** `isGranted`: whether the client's session here may be sent commands by now. */
export function seeSlice({ lost, over }: ClientSlice, isGranted: (clientId: string) => boolean): Seen[] {
  const sightings = lost.map(
    ({ clientId, offlineSince }): Sighting => ({
      kind: 'client_lost',
      subject: clientId,
      clientId,
      commandId: null,
      count: 1,
      message: `${clientId} is offline since ${offlineSince} while work waits for it.`,
      details: { offlineSince },
      at: null,
    }),
  )
  const endings = over.flatMap(({ kind, clientId, why }): Ending[] => {
    if (why !== 'at_qos_0') return [{ kind, subject: clientId, because: OVER[why], at: null }]
    return isGranted(clientId) ? [{ kind, subject: clientId, because: 'its commands topic is granted', at: null }] : []
  })
  return [...sightings, ...endings]
}

/** A name that is no client's raises nothing, nor does a refusal that is overtaken: the client is in by now. */
export function seeRefusals(
  refusals: (Refusal & { at: number })[],
  known: Map<string, KnownClient>,
  isGranted: (clientId: string) => boolean,
): Sighting[] {
  return refusals.flatMap(({ clientId, cause, reason, count, at }): Sighting[] => {
    const client = known.get(clientId)
    const overtaken = cause === 'login' ? (client?.onlineSince ?? 0) > at : isGranted(clientId)
    if (!client || overtaken) return []
    const message =
      cause === 'login' ? `${clientId} is refused at its login: ${reason}` : `${clientId} gets no commands: ${reason}`
    return [
      {
        kind: 'client_refused',
        subject: clientId,
        clientId,
        commandId: null,
        count,
        message,
        details: { cause, reason },
        at,
      },
    ]
  })
}

export const seeLogins = (events: TellingEvent[]): Ending[] =>
  events.flatMap(({ type, clientId, at }) =>
    type === 'client.online'
      ? [{ kind: 'client_refused' as const, subject: clientId, because: 'the client has logged in', at }]
      : [],
  )

/** One sighting per kind and subject, however many minutes it went on. */
export function seeSecurityEvents(untold: UntoldEvents[]): Sighting[] {
  return [...Map.groupBy(untold, ({ kind, subject }) => `${kind}:${subject}`)].map(([subject, minutes]) => {
    const last = minutes.at(-1) as UntoldEvents
    const from = last.address === null ? '' : ` from ${last.address}`
    return {
      kind: 'security_event',
      subject,
      clientId: Id.safeParse(last.clientId).data ?? null,
      commandId: null,
      count: minutes.reduce((sum, { more }) => sum + more, 0),
      message: `It looks like an attack: ${last.kind} of ${last.subject}${from} (${last.detail}). Find out who that is.`,
      details: {
        event: last.kind,
        detail: last.detail,
        addresses: [...new Set(minutes.flatMap(({ address }) => address ?? []))].reverse().slice(0, SHOWN),
      },
      at: Math.max(...minutes.map(({ lastAt }) => lastAt)),
    }
  })
}

export const seeQuiet = (quiet: { subject: string; lastAt: number }[]): Ending[] =>
  quiet.map(({ subject, lastAt }) => ({
    kind: 'security_event',
    subject,
    because: 'somebody has seen it, and it was not noticed again',
    at: lastAt,
  }))

/** There is one feed. */
const FEED = 'feed'

export function seeFeedLag(blocker: FeedBlocker | undefined): Sighting {
  const since = blocker?.since ? ` since ${blocker.since}` : ''
  const who = blocker ? `: ${blocker.who}${blocker.database ? ` in database ${blocker.database}` : ''}${since}` : ''
  return {
    kind: 'feed_lag',
    subject: FEED,
    clientId: null,
    commandId: null,
    count: 1,
    message: `Streams of events and what follows them are late: a transaction on the PostgreSQL server stays open${who}. End it.`,
    details: blocker ? { blocker: { ...blocker } } : {},
    at: null,
  }
}

export const FEED_CAUGHT_UP: Ending = { kind: 'feed_lag', subject: FEED, because: 'the feed has caught up', at: null }
