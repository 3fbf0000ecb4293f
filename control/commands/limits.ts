import type { DayQuotas } from '../../db/new-commands.ts'
import { type Target, targetName } from '../../schemas/commands.ts'
import { LimitError, type LimitState } from '../../schemas/errors.ts'
import type { Actor } from '../access/actor.ts'
import { type MinuteShare, takeMinuteShare } from '../access/minute-limits.ts'
import type { SecurityLog } from '../access/security-log.ts'
import type { SharedCounter } from '../cluster/line.ts'
import type { Allowance } from './allowance.ts'

interface LimitDeps {
  securityLog: SecurityLog
  minuteCounter: SharedCounter
}

const DAY_SECONDS = 86_400
/** Beyond a limit somebody may have miscounted; beyond this it is worth a look. */
const SUSPICIOUS = 1.5

/** Counts the command against the minute limits of its grants; null where none is involved. Throws RATE_LIMIT. */
export async function minuteShare(deps: LimitDeps, actor: Actor, { grants }: Allowance): Promise<MinuteShare | null> {
  if (grants.size === 0) return null
  const share = await takeMinuteShare(deps.minuteCounter, actor.principal.id, [...grants.values()])
  if (!share.refused) return share
  const { state, refused } = share
  noteExcess(deps, actor, 'commands per minute', refused.asked, state.quota)
  const message = `${actor.principal.name} may send ${state.quota} commands per minute; try again in ${state.resetSeconds} s.`
  throw new LimitError('RATE_LIMIT', message, [state], state.resetSeconds)
}

/** The limit that has least left. */
export function dayState({ quotas, daySecondsLeft }: DayQuotas): LimitState {
  const tightest = quotas.reduce((a, b) => (b.most - b.used < a.most - a.used ? b : a))
  return {
    name: 'day',
    quota: tightest.most,
    windowSeconds: DAY_SECONDS,
    remaining: Math.max(0, tightest.most - tightest.used),
    resetSeconds: Math.ceil(daySecondsLeft),
  }
}

export function dayLimit(deps: LimitDeps, actor: Actor, day: DayQuotas): LimitError {
  const reached = day.quotas.filter(({ ok }) => !ok)
  const state = dayState({ ...day, quotas: reached })
  for (const { used, refused, most } of reached) noteExcess(deps, actor, 'commands per day', used + refused, most)
  const message = `${actor.principal.name} may send ${state.quota} commands per day and has ${state.remaining} left; the next day begins in ${state.resetSeconds} s.`
  return new LimitError('DAILY_LIMIT', message, [state], state.resetSeconds)
}

/** Nobody knows when the client will have taken what waits for it. */
export function queueLimit(target: Target, most: number): LimitError {
  const state = { name: 'queue', quota: most, remaining: 0, resetSeconds: 1 }
  const message = `The ${targetName(target)} has ${most} commands waiting; only priority 10 is accepted.`
  return new LimitError('QUEUE_FULL', message, [state], state.resetSeconds)
}

function noteExcess(deps: LimitDeps, { principal, address }: Actor, what: string, asked: number, quota: number): void {
  if (asked <= quota * SUSPICIOUS) return
  const detail = `asked for ${asked} ${what}, ${quota} are allowed`
  deps.securityLog.note({ kind: 'over_quota', subject: principal.name, principal: principal.name, address, detail })
}
