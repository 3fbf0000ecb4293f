import type { Logger } from 'pino'
import type { Db } from '../../db/connect.ts'
import { forgetEndedSessions } from '../../db/console-sessions.ts'
import { forgetIdempotencyKeys, forgetPreviews } from '../../db/new-commands.ts'
import {
  type DueWork,
  findDueExecutions,
  findNeglectedSessions,
  findOrphanedClaims,
} from '../../db/overdue-executions.ts'
import { forgetUsage } from '../../db/quotas.ts'
import { forgetSecurityEvents } from '../../db/security-events.ts'
import { abandonOfDeleted } from '../clients/manage-clients.ts'
import { type Clock, createClock } from '../clock.ts'
import type { CatchUp } from '../cluster/catch-up.ts'
import type { Session, Sessions } from '../sessions/sessions.ts'
import type { Dispatch } from './dispatch.ts'
import type { Applied, Ledger } from './ledger.ts'

/** Makes true what time decides, and finds what the fast path missed. Everything it does is safe from several nodes at once. */
export interface Sweeper extends Clock {
  /** One pass; `start` repeats it until `stop`. */
  sweep(): Promise<void>
  /** A killed node could not say how its sessions ended: claims that no journal vouches for are settled here (rule 6). */
  settleOrphanedClaims(): Promise<void>
}

export interface SweeperDeps {
  db: Db
  log: Logger
  ledger: Ledger
  dispatch: Dispatch
  sessions: Sessions
  /** Whether this node does what has to be done once. */
  leads(): boolean
  /** Finds what other nodes could not tell. */
  catchUp: Pick<CatchUp, 'isLate' | 'pass'>
  intervalSeconds: number
  /** Whose missed work is looked for in one pass: looking at all costs as much as many commands, and it takes a fault to miss any. */
  sessionsPerPass: number
  idempotencyKeySeconds: number
  securityEventSeconds: number
  sessionIdleSeconds: number
}

const BATCH = 500
/** How long a preview can be told from what came later. */
const PREVIEW_SECONDS = 86_400
/** Housekeeping that nobody waits for, every so many passes. */
const RARELY = 30

export function createSweeper(deps: SweeperDeps): Sweeper {
  let passes = 0
  /** How many sessions of this round were looked at. */
  let lookedAt = 0

  async function sweep(): Promise<void> {
    if (deps.leads()) await settleDueWork()
    await reviveSessions()
    const rarely = passes++ % RARELY === 0
    await deps.catchUp.pass(rarely)
    if (rarely || deps.sessions.mayHaveLost()) await deps.sessions.endLost()
    if (rarely && deps.leads()) {
      await settleOrphanedClaims()
      await abandonOfDeleted(deps, null)
      await forgetIdempotencyKeys(deps.db, deps.idempotencyKeySeconds, 10_000)
      await forgetPreviews(deps.db, PREVIEW_SECONDS)
      await forgetSecurityEvents(deps.db, deps.securityEventSeconds, 10_000)
      await forgetEndedSessions(deps.db, deps.sessionIdleSeconds, 10_000)
      await forgetUsage(deps.db)
    }
  }

  /** Expiries, time-outs and waits that are over, until a pass finds fewer than a full batch. */
  async function settleDueWork(): Promise<void> {
    for (;;) {
      const due = await findDueExecutions(deps.db, BATCH)
      const applied = await Promise.all(due.map(settle))
      const moved = applied.filter((change) => change && change.after !== change.before)
      if (due.length < BATCH || moved.length === 0) return
    }
  }

  async function settle({ key, why }: DueWork): Promise<Applied | undefined> {
    const change = await deps.ledger.apply(key, { type: why })
    if (change?.effect === 'send-cancel') await deps.dispatch.sendCancel(key, change.after)
    return change
  }

  async function reviveSessions(): Promise<void> {
    const live = [...deps.sessions.all()].filter((session) => !session.ending)
    for (const session of live) if (session.uncertain) deps.dispatch.wake(session)
    const looked = deps.catchUp.isLate() ? live : nextOf(live)
    for (let from = 0; from < looked.length; from += BATCH) {
      const neglected = await findNeglectedSessions(deps.db, looked.slice(from, from + BATCH))
      for (const { clientId, epoch, superseded, stale } of neglected) {
        const session = deps.sessions.get(clientId)
        if (!session || session.epoch !== epoch) continue
        // What is on its way to the client is not sent once more.
        if (stale) session.uncertain = true
        if (superseded) void session.outlet.close(session, 'it is not the current session of its client')
        else deps.dispatch.wake(session)
      }
    }
  }

  /** The next ones; who comes or goes meanwhile may move one past its turn, until the next round. */
  function nextOf(live: Session[]): Session[] {
    const from = lookedAt < live.length ? lookedAt : 0
    lookedAt = from + deps.sessionsPerPass
    return live.slice(from, lookedAt)
  }

  async function settleOrphanedClaims(): Promise<void> {
    const orphans = await findOrphanedClaims(deps.db, 10_000)
    await Promise.all(
      orphans.map((orphan) => deps.ledger.apply(orphan, { type: 'session-ended', epoch: orphan.epoch })),
    )
  }

  const clock = createClock({ what: 'sweep', log: deps.log, intervalSeconds: deps.intervalSeconds, pass: sweep })
  return { ...clock, sweep, settleOrphanedClaims }
}
