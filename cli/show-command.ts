import type { Command, Target } from '../schemas/commands.ts'
import type { Event } from '../schemas/events.ts'
import { isSettled, STATUSES, type Status } from '../schemas/executions.ts'
import { fields, printable } from './output.ts'

type Counts = Command['counts']

export function targetText(target: Target): string {
  if (target.kind === 'client') return target.clientId
  return target.kind === 'zone' ? `zone ${target.zone}` : 'everybody'
}

export const settledOf = (counts: Counts): number =>
  STATUSES.filter(isSettled).reduce((sum, status) => sum + (counts[status] ?? 0), 0)

/** `completed 3, failed 1`, furthest first. */
export function countsText(counts: Counts): string {
  const order: Status[] = [...STATUSES.filter(isSettled), ...STATUSES.filter((status) => !isSettled(status)).reverse()]
  return order
    .filter((status) => counts[status])
    .map((status) => `${status} ${counts[status]}`)
    .join(', ')
}

/** Whether every execution did what was asked. */
export const isCompleted = (command: Command): boolean => command.status === 'completed'

export function commandText(command: Command): string {
  const { target, counts, excluded, ...rest } = command
  return fields({
    id: rest.id,
    status: rest.status,
    target: targetText(target),
    action: rest.action,
    payload: rest.payload === undefined ? undefined : JSON.stringify(rest.payload),
    executions: `${rest.total}: ${countsText(counts)}`,
    excluded: excluded.length > 0 ? excluded.map((one) => `${one.clientId} (${one.reason})`) : undefined,
    attempt: rest.attempt,
    result: rest.result === undefined ? undefined : JSON.stringify(rest.result),
    error: rest.error ? `${rest.error.code}: ${rest.error.message}` : undefined,
    priority: rest.priority,
    delivery: rest.delivery,
    'sent by': rest.createdBy,
    created: rest.createdAt,
    'not before': rest.notBefore,
    expires: rest.expiresAt,
    started: rest.startedAt,
    completed: rest.completedAt,
  })
}

/** One line of a timeline or of `watch`. */
export function eventText(event: Event): string {
  const about = event.clientId ?? event.commandId ?? ''
  const attempt = event.attempt === undefined ? '' : `attempt ${event.attempt}`
  const data = Object.keys(event.data).length > 0 ? JSON.stringify(event.data) : ''
  return printable(
    [event.at, event.type.padEnd(25), about.padEnd(12), attempt, data].filter(Boolean).join('  ').trimEnd(),
  )
}
