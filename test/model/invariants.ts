import { inFlight, rank } from '../../control/executions/states.ts'
import { isTerminal } from '../../schemas/executions.ts'
import { cannotTell } from './client.ts'
import { isInHand } from './node.ts'
import type { Actor } from './steps.ts'
import { type Bounds, of, SAID, type World } from './world.ts'

// What must never be. Each answers true where it is broken.

const said = (world: World, attempt: number, what: number): boolean => (of(world.past.said, attempt) & what) !== 0
const acted = (world: World, attempt: number): boolean => of(world.past.effects, attempt) > 0
const WITHDRAWN = SAID.cancelled | SAID.expired
const isWithdrawn = ({ row }: World): boolean => row.state.status === 'cancelled' || row.state.status === 'expired'

/** Of a world. */
const states: Record<string, (world: World, bounds: Bounds) => boolean> = {
  'I1 at_most_once had its effect twice without a principal permitting it': (world, { delivery }) => {
    const [first, second] = world.past.effects
    return delivery === 'at_most_once' && first + second > 1 + world.past.words
  },
  'I1 an attempt of at_most_once had its effect twice': (world, { delivery }) =>
    delivery === 'at_most_once' && world.past.effects.some((times) => times > 1),
  'R4 a client with its journal ran an attempt twice': (world, { client }) =>
    client === 'journal' && world.past.wipes === 0 && world.past.effects.some((times) => times > 1),
  'I6 completed, and no client said so': (world) =>
    world.row.state.status === 'completed' &&
    !world.past.resolvedCompleted &&
    !said(world, 1, SAID.completed) &&
    !said(world, 2, SAID.completed),
  'I6 the server withdrew an attempt that had its effect': (world) =>
    isWithdrawn(world) && acted(world, world.row.state.attempt) && !said(world, world.row.state.attempt, WITHDRAWN),
  'I6 the client withdrew an attempt that had its effect': (world) =>
    isWithdrawn(world) && acted(world, world.row.state.attempt) && said(world, world.row.state.attempt, WITHDRAWN),
  'I6 withdrawn, though an earlier attempt had its effect': (world) =>
    isWithdrawn(world) &&
    world.row.state.attempt === 2 &&
    acted(world, 1) &&
    !said(world, 1, SAID.failed | WITHDRAWN) &&
    !said(world, 2, WITHDRAWN),
  'I6 withdrawn, though an attempt or a hand-over had its effect that nobody said failed': (world) =>
    isWithdrawn(world) && [1, 2].some((attempt) => acted(world, attempt) && !said(world, attempt, SAID.failed)),
  'R8 a cancel was requested, and the session that may have the command was not told': (world, { nodes }) => {
    const { row, toTell, sessionEpoch, sessions } = world
    const current = sessions[sessionEpoch - 1]
    if (nodes > 1 || toTell || !current || row.state.cancelRequestedAt === null) return false
    if (current.phase !== 'live' || !current.granted || current.toMakeReady || current.told) return false
    return inFlight(row.state.status) && !isInHand(current, row.state.attempt)
  },
}

const isRelease = (before: World, after: World): boolean =>
  before.row.state.status === 'queued' &&
  after.row.state.status === 'pending' &&
  after.row.state.attempt === before.row.state.attempt &&
  !of(before.past.forwarded, before.row.state.attempt)

const isBelow = (before: World, after: World): boolean => {
  const [old, now] = [before.row.state, after.row.state]
  return now.attempt < old.attempt || (now.attempt === old.attempt && rank(now.status) < rank(old.status))
}

/** Of a step. */
const moves: Record<string, (before: World, after: World, by: Actor) => boolean> = {
  'I4 a position went back, and not by the release of a claim that was never written': (before, after) =>
    isBelow(before, after) && !isRelease(before, after),
  'I4 a terminal status changed without a principal': (before, after, by) =>
    by !== 'principal' &&
    isTerminal(before.row.state.status) &&
    after.row !== before.row &&
    after.row.state.status !== before.row.state.status,
}

/**
 * Of a world in which nothing happens any more by itself, timers aside, while the client is connected and has kept its journal.
 * (With two nodes, the one that ought to tell the client may not know of it: that is not built yet.)
 */
const atRest: Record<string, (world: World) => boolean> = {
  'I7 the client knows, and the outcome stays unknown': ({ row, past, client }) =>
    row.state.status === 'outcome_unknown' && past.words === 0 && !cannotTell(client.memory),
  'I8 the client has it, or may have it, and it stands still until a timer ends it': ({ row }) =>
    inFlight(row.state.status),
}

export function isAtRest(world: World, goesOn: boolean, { client, nodes }: Bounds): boolean {
  const { connection, up } = world.client
  const current = world.sessions[connection - 1]
  const connected = up && current?.phase === 'live' && current.granted && world.sessionEpoch === connection
  return client === 'journal' && nodes === 1 && world.past.wipes === 0 && connected && !goesOn
}

export const STATES = Object.entries(states)
export const MOVES = Object.entries(moves)
export const AT_REST = Object.entries(atRest)
