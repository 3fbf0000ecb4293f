import type { Logger } from 'pino'
import { v7 as uuid } from 'uuid'
import {
  findDoubts,
  findForgottenDoubts,
  findKnownClients,
  findQuietAlerts,
  readTellingEvents,
} from '../../db/alert-sources.ts'
import { type AlertCursor, loadOpenAlerts, readAlertCursor, storeAlerts } from '../../db/alert-store.ts'
import type { Db } from '../../db/connect.ts'
import { feedLagSeconds, findFeedBlocker } from '../../db/events.ts'
import { readClientSlice } from '../../db/lost-clients.ts'
import { readUntoldEvents } from '../../db/security-events.ts'
import { type Clock, createClock } from '../clock.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { fold, type Seen, SHOWN } from './fold.ts'
import type { Refusal, Refusals } from './refusals.ts'
import {
  doubtedCommands,
  FEED_CAUGHT_UP,
  seeDoubts,
  seeFailures,
  seeFeedLag,
  seeLogins,
  seeQuiet,
  seeRefusals,
  seeSecurityEvents,
  seeSlice,
} from './sightings.ts'

export interface AlertFollowerDeps {
  db: Db
  log: Logger
  sessions: Sessions
  /** Whether this node does what has to be done once. */
  leads(): boolean
  refusals: Refusals
  intervalSeconds: number
  clientLostSeconds: number
  securityQuietSeconds: number
  feedLagSeconds: number
}

/** Events that are read in one look, and looks in one pass: after a feed that was held back for long, others get their turn. */
const PAGE = 5000
const MAX_PAGES = 50
/** Clients that are looked at in one pass. */
const SLICE = 5000
/** What only the removal of history brings about is looked for every so many passes. */
const RARELY = 30
/** Each time somebody else was faster, and has stored something: more often in a row is a fault. */
const MAX_RACES = 20

/**
 * Makes alerts of what happened and of how things stand, beside the commands' way and never in it: it follows the feed of events
 * with a cursor that PostgreSQL keeps and that moves in the statement that stores the alerts. So each event counts once, whoever
 * is killed when. Safe from several nodes at once: of two that saw the same, the later one looks again.
 */
export function createAlertFollower(deps: AlertFollowerDeps): Clock {
  const { db } = deps
  let passes = 0
  let sliceAfter = ''
  const isGranted = (clientId: string): boolean => deps.sessions.get(clientId)?.subscription === 'granted'

  async function pass(): Promise<void> {
    const rarely = passes++ % RARELY === 0
    const refusals = deps.refusals.take()
    // What only this node knows: who was refused here, and, now and then, whose subscription was granted since.
    if (!deps.leads() && refusals.length === 0 && !rarely) return
    let more: boolean
    try {
      more = await look(refusals, () => lookAtState(rarely))
    } catch (error) {
      // If the commit was only not answered they count twice: a count may be wrong by that, an alert never.
      deps.refusals.putBack(refusals)
      throw error
    }
    for (let page = 1; more && page < MAX_PAGES; page++) more = await look([], async () => [])
  }

  /** Reads the next page of the feed, decides, and stores it all at once. Answers whether there is another page. */
  async function look(refusals: Refusal[], state: () => Promise<Seen[]>): Promise<boolean> {
    for (let race = 0; race < MAX_RACES; race++) {
      const cursor = await readAlertCursor(db)
      const { events, head, full } = await readTellingEvents(db, cursor, PAGE, loginsOf(refusals))
      const doubted = doubtedCommands(events)
      const untold = await readUntoldEvents(db, PAGE)
      const seen = [
        ...(await lookAtRefusals(refusals, cursor)),
        ...seeLogins(events),
        ...seeFailures(events),
        ...seeDoubts(doubted, await findDoubts(db, doubted, SHOWN), events),
        ...seeSecurityEvents(untold),
        ...(await state()),
      ]
      const changes = fold(await loadOpenAlerts(db, seen), seen, cursor.now, uuid)
      if (changes.length === 0 && !head) return false
      if (await storeAlerts(db, cursor, head ?? cursor, untold, changes)) return full
    }
    throw new Error('alerts could not be stored: others were faster each time')
  }

  const loginsOf = (refusals: Refusal[]): string[] =>
    refusals.flatMap(({ cause, clientId }) => (cause === 'login' ? clientId : []))

  async function lookAtRefusals(refusals: Refusal[], { now }: AlertCursor): Promise<Seen[]> {
    // Told by the database's clock, like the logins that end them.
    const dated = refusals.map((refusal) => ({ ...refusal, at: now - (performance.now() - refusal.heardAt) }))
    const known = await findKnownClients(
      db,
      refusals.map(({ clientId }) => clientId),
    )
    return seeRefusals(dated, known, isGranted)
  }

  /** What no event tells: time that has passed, and what a subscription or the removal of history has changed. */
  async function lookAtState(rarely: boolean): Promise<Seen[]> {
    const slice = await readClientSlice(db, sliceAfter, SLICE, deps.clientLostSeconds)
    sliceAfter = slice.next
    const late = (await feedLagSeconds(db)) > deps.feedLagSeconds
    const forgotten = rarely ? await findForgottenDoubts(db, PAGE) : []
    return [
      ...seeSlice(slice, isGranted),
      late ? seeFeedLag(await findFeedBlocker(db)) : FEED_CAUGHT_UP,
      ...seeDoubts(forgotten, [], []),
      ...seeQuiet(await findQuietAlerts(db, 'security_event', deps.securityQuietSeconds, PAGE)),
    ]
  }

  return createClock({ what: 'look for alerts', log: deps.log, intervalSeconds: deps.intervalSeconds, pass })
}
