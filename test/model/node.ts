import type { Input } from '../../control/executions/lifecycle.ts'
import { inFlight, lastHandedOver } from '../../control/executions/states.ts'
import type { ExecutionState } from '../../db/executions.ts'
import { isSettled } from '../../schemas/executions.ts'
import type { Move } from './rows.ts'
import type { AttemptStep, SessionStep, WorldStep } from './steps.ts'
import {
  at,
  forgetSession,
  hand,
  journalId,
  type Message,
  type Model,
  message,
  of,
  type Session,
  session,
  toClient,
  type World,
  WRITTEN,
  withPast,
  withSession,
} from './world.ts'

// The node: what is around `transition` in control/executions (ledger, dispatch, group, sweeper), control/sessions and broker,
// with the conditions as they are there.

interface Committed {
  world: World
  move: Move
}

/** One job of the ledger: a change that needs the client's current session is not stored without it. */
function commit(world: World, { rows }: Model, input: Input, guardEpoch = 0): Committed | undefined {
  const move = rows.apply(world.row, world.expired, input)
  if (guardEpoch !== 0 && move.stored && world.sessionEpoch !== guardEpoch) return undefined
  return { world: { ...world, row: move.row, expired: move.expired }, move }
}

/** As `commit`, for steps that there are only if something changes; the client is told of it in a step of its own. */
function moved(world: World, model: Model, input: Input): World | undefined {
  const done = commit(world, model, input)
  if (!done?.move.stored) return undefined
  // With two nodes, the one that finds what time has done may not be the client's: it tells nobody.
  const isTold = done.move.effect === 'send-cancel' && (model.bounds.nodes === 1 || input.type === 'cancel')
  return isTold ? { ...done.world, toTell: cancelOf(done.world.row.state) } : done.world
}

// ---- dispatch

const writable = (one: Session): boolean => one.granted && one.phase === 'live'

/** Claimed, or to be sent again, and not known to be written. */
export const isInHand = (one: Session, attempt: number): boolean => {
  const held = of(one.hands, attempt)
  return held !== null && held.step !== 'written'
}

/** The loop of claims writes what it has claimed before it claims again. */
const isClaiming = (one: Session): boolean =>
  one.hands.some((held) => held?.cause === 'claim' && held.step !== 'written')

/** The end of a session waits for this: for its claims, and for what makes it ready, which its connection waits for. */
const isIdle = (one: Session): boolean =>
  !one.toMakeReady && one.acknowledged === 0 && !isInHand(one, 1) && !isInHand(one, 2)

const setHand = (world: World, epoch: number, attempt: number, value: Session['hands'][0]): World =>
  withSession(world, epoch, { hands: at(session(world, epoch).hands, attempt, value) })

/**
 * What the client is told: the attempt that it was handed last, and the journal of its first hand-over. An `ask` is a cancel that
 * only the memory with that journal is told.
 */
function cancelOf(state: ExecutionState): Message | null {
  const handover = lastHandedOver(state)
  const kind = state.status === 'outcome_unknown' ? 'ask' : 'cancel'
  return handover ? message(kind, handover.attempt, { journal: handover.journalId }) : null
}

/** What came while the attempt was in hand. */
function withdrawalOf({ handovers }: ExecutionState, attempt: number): Message | null {
  const first = handovers.find((handover) => handover.attempt === attempt)
  return first ? message('cancel', attempt, { journal: first.journalId }) : null
}

function sendCancel(world: World, epoch: number, told: Message | null): World {
  const one = session(world, epoch)
  if (!told || !writable(one)) return world
  const remembers = told.journal !== null && told.journal === journalId(one.journal)
  if (told.kind === 'ask' && !remembers) return world
  const cancel = message('cancel', told.attempt, { journal: told.journal ?? null })
  if (!isInHand(one, cancel.attempt)) return withSession(toClient(world, epoch, cancel), epoch, { told: true })
  const held = of(one.hands, cancel.attempt)
  return held ? setHand(world, epoch, cancel.attempt, hand(held.step, held.cause, true)) : world
}

/** Not written: a first claim is released. A cancel that came meanwhile is told, unless the release has settled it. */
function leave(world: World, epoch: number, attempt: number, model: Model): World | undefined {
  const held = of(session(world, epoch).hands, attempt)
  const done = commit(setHand(world, epoch, attempt, null), model, { type: 'release', epoch, attempt })
  if (!done) return undefined
  if (done.move.stored)
    return done.move.effect ? sendCancel(done.world, epoch, cancelOf(done.world.row.state)) : done.world
  return held?.withdrawn ? sendCancel(done.world, epoch, withdrawalOf(world.row.state, attempt)) : done.world
}

function written(world: World, epoch: number, attempt: number): World {
  const held = of(session(world, epoch).hands, attempt)
  const sent = withPast(toClient(setHand(world, epoch, attempt, WRITTEN), epoch, message('command', attempt)), {
    forwarded: at(world.past.forwarded, attempt, true),
  })
  return held?.withdrawn ? sendCancel(sent, epoch, withdrawalOf(world.row.state, attempt)) : sent
}

function publishGroup(world: World, epoch: number, model: Model): World | undefined {
  const one = session(world, epoch)
  const held = one.hands[0]
  if (held?.cause !== 'group' || held.step !== 'to be written') return world
  if (!writable(one) || held.withdrawn) return leave(world, epoch, 1, model)
  return setHand(world, epoch, 1, hand('writing', 'group'))
}

export const WRITING: AttemptStep[] = [
  {
    name: 'the node begins to write the command, or leaves it',
    by: 'server',
    take(world, epoch, attempt, model) {
      const one = session(world, epoch)
      const held = of(one.hands, attempt)
      // A session that ends leaves the group, whose publish writes the others.
      const waits = held?.cause === 'group' && !(world.groupOpen && one.phase === 'ending')
      if (held?.step !== 'to be written' || waits) return undefined
      if (!writable(one) || held.withdrawn) return leave(world, epoch, attempt, model)
      return setHand(world, epoch, attempt, hand('writing', held.cause))
    },
  },
  {
    name: 'the command is written to the socket, or was too late for it',
    by: 'server',
    take(world, epoch, attempt, model) {
      const one = session(world, epoch)
      if (of(one.hands, attempt)?.step !== 'writing') return undefined
      return one.phase === 'live' ? written(world, epoch, attempt) : leave(world, epoch, attempt, model)
    },
  },
]

// ---- what comes in on a connection

/** The connection's next message, if it is one of these. */
function next(world: World, epoch: number, kind: Message['kind']): Message | undefined {
  const one = session(world, epoch)
  const [first] = one.phase === 'live' ? one.inbox : []
  return first?.kind === kind ? first : undefined
}

const taken = (world: World, epoch: number, change: Partial<Session> = {}): World =>
  withSession(world, epoch, { ...change, inbox: session(world, epoch).inbox.slice(1) })

const position = ({ row: { state } }: World): string => `${state.attempt} ${state.status}`

/** A report without its attempt may be about an older one than the newest. */
const isMistaken = (before: World, after: World, about: number, said: string): boolean =>
  before.row.state.attempt > about &&
  said !== 'completed' &&
  inFlight(before.row.state.status) &&
  position(before) !== position(after)

export const INCOMING: SessionStep[] = [
  {
    name: "the client's status is committed",
    by: 'server',
    take(world, epoch) {
      const status = next(world, epoch, 'status')
      return status && taken(world, epoch, { journal: status.attempt, statusSeen: true })
    },
  },
  {
    name: 'the subscription is granted',
    by: 'server',
    take: (world, epoch) =>
      next(world, epoch, 'subscribe') && taken(world, epoch, { granted: true, toMakeReady: true }),
  },
  {
    name: 'a PUBACK comes in',
    by: 'server',
    take(world, epoch) {
      const puback = next(world, epoch, 'puback')
      // They are committed in their order, each before the next is looked at.
      if (!puback || session(world, epoch).acknowledged !== 0) return undefined
      return taken(world, epoch, { acknowledged: puback.attempt })
    },
  },
  {
    name: 'a report is committed',
    by: 'server',
    take(world, epoch, model) {
      const said = next(world, epoch, 'report')
      if (said?.status === undefined) return undefined
      const report = {
        status: said.status,
        ...(model.bounds.unnamed ? {} : { attempt: said.attempt }),
        ...(said.code === undefined ? {} : { error: { code: said.code, message: '' } }),
      }
      const input: Input = { type: 'report', report, journalId: journalId(session(world, epoch).journal) }
      const done = commit(world, model, input)
      if (!done) return undefined
      const inbox = session(world, epoch).inbox.slice()
      inbox[0] = message('committed', said.attempt, { status: said.status })
      const after = withSession(done.world, epoch, { inbox })
      if (done.move.events === 0) return { ...after, broken: 'I5 a report is acknowledged and not in the record' }
      if (model.bounds.unnamed && isMistaken(world, after, said.attempt, said.status))
        return { ...after, broken: 'T a report without attempt moved a newer attempt than it was about' }
      return after
    },
  },
  {
    name: 'its PUBACK is written',
    by: 'server',
    take(world, epoch) {
      const done = next(world, epoch, 'committed')
      if (!done) return undefined
      const rest = taken(world, epoch)
      return done.status === 'running'
        ? rest
        : toClient(rest, epoch, message('answer', done.attempt, { status: done.status as 'completed' }))
    },
  },
]

// ---- sessions and claims

/** A fault, and yet something that the server does by itself if nothing else comes: its PUBACK timeout, its keepalive. */
export const BREAKS = 'the connection breaks, by its PUBACK timeout or otherwise'

export const SESSIONS: SessionStep[] = [
  {
    name: 'what earlier sessions left open is brought up',
    by: 'server',
    take(world, epoch, model) {
      const one = session(world, epoch)
      if (!one.toMakeReady || one.phase === 'over') return undefined
      const looked = withSession(world, epoch, { toMakeReady: false })
      if (world.sessionEpoch !== epoch) return looked
      const input = {
        type: 'session-ready',
        epoch,
        journalId: journalId(one.journal),
        statusSeen: one.statusSeen,
      } as const
      const done = commit(looked, model, input, epoch)
      if (!done) return looked
      const { state } = world.row
      const leftOver =
        state.status === 'queued' &&
        state.epoch === epoch &&
        of(one.hands, state.attempt) === null &&
        state.cancelRequestedAt === null
      const after = done.world.row.state
      if (leftOver || done.move.effect === 'send-command')
        return setHand(done.world, epoch, after.attempt, hand('to be written', 'redelivery'))
      return done.move.effect === 'send-cancel' ? sendCancel(done.world, epoch, cancelOf(after)) : done.world
    },
  },
  {
    name: 'the session claims',
    by: 'server',
    take(world, epoch, model) {
      const one = session(world, epoch)
      const { state } = world.row
      // What loadClaimable selects; `transition` judges again.
      const claimable = state.status === 'pending' && state.notBefore === null && !world.expired
      if (!claimable || world.sessionEpoch !== epoch || !writable(one) || isClaiming(one)) return undefined
      const done = commit(world, model, { type: 'claim', epoch, journalId: journalId(one.journal) }, epoch)
      if (!done?.move.stored) return undefined
      const { attempt } = done.world.row.state
      const cause = world.groupOpen && attempt === 1 ? 'group' : 'claim'
      return setHand(done.world, epoch, attempt, hand('to be written', cause))
    },
  },
  {
    name: 'the PUBACK is committed',
    by: 'server',
    take(world, epoch, model) {
      const { acknowledged: attempt, hands, phase } = session(world, epoch)
      if (attempt === 0 || phase === 'over') return undefined
      const done = commit(world, model, { type: 'puback', epoch, attempt })
      const kept = of(hands, attempt) === WRITTEN ? at(hands, attempt, null) : hands
      return done && withSession(done.world, epoch, { acknowledged: 0, hands: kept })
    },
  },
  {
    name: BREAKS,
    by: 'fault',
    take: (world, epoch) => (isInUse(world, epoch) ? closed(world, epoch) : undefined),
  },
  {
    name: 'the server closes the session, which is of no use to anybody',
    by: 'server',
    take: (world, epoch) => (isInUse(world, epoch) ? undefined : closed(world, epoch)),
  },
  {
    name: "the session's end is committed",
    by: 'server',
    take(world, epoch, model) {
      const one = session(world, epoch)
      if (one.phase !== 'ending' || !isIdle(one)) return undefined
      const done = commit(world, model, { type: 'session-ended', epoch })
      if (!done) return undefined
      const after = withSession(done.world, epoch, { phase: 'ended' })
      const needless = done.move.stored && !of(world.past.forwarded, world.row.state.attempt)
      return needless ? { ...after, broken: 'R6 what its living node never wrote is called unknown' } : after
    },
  },
  {
    name: 'the client is shown offline',
    by: 'server',
    take(world, epoch) {
      if (session(world, epoch).phase !== 'ended') return undefined
      const sessionEpoch = world.sessionEpoch === epoch ? 0 : world.sessionEpoch
      return forgetSession({ ...world, sessionEpoch }, epoch)
    },
  },
  {
    name: 'the node tells the client of a cancel, or asks it',
    by: 'server',
    take(world, epoch, { bounds }) {
      if (!world.toTell || session(world, epoch).phase === 'over') return undefined
      // The newest session of the node; with two nodes, whichever the principal spoke to.
      if (bounds.nodes === 1 && newest(world) !== epoch) return undefined
      return { ...sendCancel(world, epoch, world.toTell), toTell: null }
    },
  },
  {
    name: 'the node of the session crashes',
    by: 'fault',
    take(world, epoch, { bounds }) {
      if (world.past.nodeCrashes >= bounds.nodeCrashes || session(world, epoch).phase === 'over') return undefined
      const crashed = withPast(world, { nodeCrashes: world.past.nodeCrashes + 1 })
      if (bounds.nodes === 2) return forgetSession(crashed, epoch)
      const epochs = world.sessions.map((_, index) => index + 1)
      const lost = epochs.reduce((rest, each) => forgetSession(rest, each), crashed)
      return { ...lost, toTell: null, groupOpen: false }
    },
  },
  {
    name: 'another node takes that of the session for dead',
    by: 'fault',
    take: (world, epoch, { bounds }) =>
      bounds.takenForDead && world.sessionEpoch === epoch && session(world, epoch).phase === 'live'
        ? { ...world, sessionEpoch: 0 }
        : undefined,
  },
]

const isInUse = (world: World, epoch: number): boolean =>
  world.sessionEpoch === epoch && world.client.connection === epoch

const closed = (world: World, epoch: number): World | undefined =>
  session(world, epoch).phase === 'live' ? withSession(world, epoch, { phase: 'ending', inbox: [] }) : undefined

const newest = (world: World): number => world.sessions.findLastIndex(({ phase }) => phase !== 'over') + 1

export const NODE: WorldStep[] = [
  {
    name: 'the publish of the group command begins',
    by: 'server',
    take(world, model) {
      if (!world.groupOpen) return undefined
      const epochs = world.sessions.map((_, index) => index + 1)
      return epochs.reduce<World | undefined>((rest, epoch) => rest && publishGroup(rest, epoch, model), {
        ...world,
        groupOpen: false,
      })
    },
  },
  {
    name: 'there is nobody to tell',
    by: 'server',
    take: (world, { bounds }) =>
      world.toTell && (bounds.nodes === 2 || newest(world) === 0) ? { ...world, toTell: null } : undefined,
  },
  {
    name: 'the session of a crashed node is closed',
    by: 'server',
    take: (world) =>
      world.sessionEpoch !== 0 && session(world, world.sessionEpoch).phase === 'over'
        ? { ...world, sessionEpoch: 0 }
        : undefined,
  },
  {
    name: 'the sweeper settles an orphaned claim',
    by: 'server',
    take(world, model) {
      const { status, epoch, delivery, handovers } = world.row.state
      // What findOrphanedClaims selects.
      const orphaned = status === 'queued' && (epoch ?? 0) !== world.sessionEpoch && delivery === 'at_most_once'
      if (!orphaned || handovers.at(-1)?.journalId !== null || epoch === null) return undefined
      return moved(world, model, { type: 'session-ended', epoch })
    },
  },
  {
    name: 'expiresAt passes',
    by: 'timer',
    take: (world, { bounds }) => (bounds.expiry && !world.expired ? { ...world, expired: true } : undefined),
  },
  {
    name: 'the sweeper expires it',
    by: 'timer',
    take(world, model) {
      if (world.row.state.status !== 'pending' || (model.bounds.expiry && !world.expired)) return undefined
      return moved({ ...world, expired: true }, model, { type: 'expire' })
    },
  },
  {
    name: 'its start timeout or its timeout strikes',
    by: 'timer',
    take: (world, model) =>
      inFlight(world.row.state.status) && world.row.state.deadline !== null
        ? moved(world, model, { type: 'timeout' })
        : undefined,
  },
  {
    name: 'the wait for the next attempt is over',
    by: 'timer',
    take: (world, model) => (world.row.state.notBefore !== null ? moved(world, model, { type: 'due' }) : undefined),
  },
]

export const PRINCIPALS: WorldStep[] = [
  {
    name: 'a principal cancels',
    by: 'principal',
    take(world, model) {
      if (world.past.cancels >= model.bounds.cancels || isSettled(world.row.state.status)) return undefined
      const cancelled = moved(world, model, { type: 'cancel', reason: null })
      return cancelled && withPast(cancelled, { cancels: world.past.cancels + 1 })
    },
  },
  {
    name: 'a principal permits another attempt',
    by: 'principal',
    take(world, model) {
      if (world.past.words >= model.bounds.words || world.row.state.attempt > 1) return undefined
      const retried = moved(world, model, { type: 'retry', ttlSeconds: 60 })
      return retried && withPast(retried, { words: world.past.words + 1, cancels: model.bounds.cancels })
    },
  },
  ...(['completed', 'failed'] as const).map(
    (outcome): WorldStep => ({
      name: `a principal resolves it as ${outcome}`,
      by: 'principal',
      take(world, model) {
        if (world.past.words >= model.bounds.words) return undefined
        const resolved = moved(world, model, { type: 'resolve', outcome, note: '' })
        return (
          resolved && withPast(resolved, { words: world.past.words + 1, resolvedCompleted: outcome === 'completed' })
        )
      },
    }),
  ),
]
