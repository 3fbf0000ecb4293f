import type { Delivery } from '../../schemas/executions.ts'
import type { ReportStatus } from '../../schemas/messages.ts'
import type { AgentRules, Memories, Memory } from './memories.ts'
import type { Row, Rows } from './rows.ts'

/** One execution, one client, and the node or nodes that serve it, at one moment. */
export interface World {
  readonly row: Row
  /** `expiresAt` has passed. */
  readonly expired: boolean
  /** The client's current session in PostgreSQL; 0 while it is offline. */
  readonly sessionEpoch: number
  /** Every session so far: the first has epoch 1. */
  readonly sessions: readonly Session[]
  /** A cancel, or an unknown outcome, is committed, and the node has not yet come to tell the client. */
  readonly toTell: Message | null
  /** The publish of the group command is still to come: a first claim goes into it. */
  readonly groupOpen: boolean
  readonly client: Client
  readonly past: Past
  /** Set by a step that must never happen. */
  readonly broken?: string
}

/** What a node knows of a session, and what is on its connection. */
export interface Session {
  /** `ending`: the socket is gone. `ended`: that is committed, the presence is not. `over`: nobody remembers it. */
  readonly phase: 'live' | 'ending' | 'ended' | 'over'
  readonly journal: number
  readonly statusSeen: boolean
  readonly granted: boolean
  /** The subscription was granted, and what earlier sessions left open is not looked at yet. */
  readonly toMakeReady: boolean
  /** By attempt: what is in hand, or written and not acknowledged. */
  readonly hands: readonly [Hand | null, Hand | null]
  /** A cancel was written. */
  readonly told: boolean
  /** A PUBACK that is read and not committed: of which attempt. */
  readonly acknowledged: number
  readonly inbox: readonly Message[]
  readonly outbox: readonly Message[]
}

/** `writing`: past the last look at whether it may be written, and not yet known to be. */
export interface Hand {
  readonly id: number
  readonly step: 'to be written' | 'writing' | 'written'
  readonly withdrawn: boolean
  readonly cause: 'claim' | 'redelivery' | 'group'
}

export interface Client {
  readonly up: boolean
  /** The session whose connection it holds; 0 without one. */
  readonly connection: number
  /** Which journal it has, counted from 1; 0 if it keeps none. */
  readonly journal: number
  readonly memory: Memory
  /** The attempt that runs has had its effect; its handler was told to stop. */
  readonly acted: boolean
  readonly aborted: boolean
  /** By attempt: a report is on its way on this connection. */
  readonly reporting: readonly [boolean, boolean]
}

/** What has happened, for the invariants and the bounds; nobody in the world knows it. */
export interface Past {
  readonly effects: readonly [number, number]
  /** Bits, by attempt: the outcomes that the client has told (SAID). */
  readonly said: readonly [number, number]
  /** By attempt: it was written to a socket. */
  readonly forwarded: readonly [boolean, boolean]
  readonly resolvedCompleted: boolean
  readonly cancels: number
  readonly words: number
  readonly nodeCrashes: number
  readonly clientCrashes: number
  readonly wipes: number
}

export type Attempt = 1 | 2
export const ATTEMPTS: readonly Attempt[] = [1, 2]

export const SAID = { completed: 1, failed: 2, rejected: 2, cancelled: 4, expired: 8, outcome_unknown: 16 } as const

/** On a connection; `committed` is a report whose PUBACK is still to be written, `kept` a command whose PUBACK is. */
export interface Message {
  readonly id: number
  readonly kind:
    | 'status'
    | 'subscribe'
    | 'puback'
    | 'report'
    | 'committed'
    | 'command'
    | 'kept'
    | 'cancel'
    | 'ask'
    | 'answer'
  readonly attempt: number
  readonly status?: ReportStatus
  /** Of the error that is reported with it. */
  readonly code?: string
  readonly journal?: string | null
}

/** How much may happen. */
export interface Bounds {
  delivery: Delivery
  client: 'journal' | 'memory'
  sessions: number
  /** With two, a client may come to the other one while its session here lives on. */
  nodes: 1 | 2
  nodeCrashes: number
  clientCrashes: number
  /** So many of the client's crashes may cost it its journal. */
  wipes: number
  cancels: number
  /** Principals' words: retry, resolve. */
  words: number
  /** The expiry passes at a moment of its own, also while the client has the command. */
  expiry: boolean
  /** A session may be closed in PostgreSQL while its node lives: somebody takes the node for dead. */
  takenForDead: boolean
  /** The first claims go out in the publish of a group command. */
  group: boolean
  /** Reports say nothing of the attempt. */
  unnamed: boolean
  /** Attempts of at_least_once that need no principal's word, beyond the first. */
  maxRetries: 0 | 1
  /** The next attempt waits before it may be claimed. */
  backoff: boolean
}

export interface Model {
  readonly bounds: Bounds
  readonly rows: Rows
  readonly memories: Memories
  readonly agent: AgentRules
}

const NEVER: readonly [boolean, boolean] = [false, false]
const NONE: readonly [number, number] = [0, 0]

export function firstWorld({ bounds, rows, memories }: Model): World {
  return {
    row: rows.first(bounds.delivery, bounds.maxRetries),
    expired: false,
    sessionEpoch: 0,
    sessions: [],
    toTell: null,
    groupOpen: bounds.group,
    client: {
      up: true,
      connection: 0,
      journal: bounds.client === 'journal' ? 1 : 0,
      memory: memories.nothing,
      acted: false,
      aborted: false,
      reporting: NEVER,
    },
    past: {
      effects: NONE,
      said: NONE,
      forwarded: NEVER,
      resolvedCompleted: false,
      cancels: 0,
      words: 0,
      nodeCrashes: 0,
      clientCrashes: 0,
      wipes: 0,
    },
  }
}

export const NEW_SESSION: Session = {
  phase: 'live',
  journal: 0,
  statusSeen: false,
  granted: false,
  toMakeReady: false,
  hands: [null, null],
  told: false,
  acknowledged: 0,
  inbox: [],
  outbox: [],
}

const OVER: Session = { ...NEW_SESSION, phase: 'over' }

// ---- parts that are replaced

export const journalId = (journal: number): string | null => (journal === 0 ? null : `j${journal}`)

export const session = (world: World, epoch: number): Session => world.sessions[epoch - 1] as Session

export function withSession(world: World, epoch: number, change: Partial<Session>): World {
  const sessions = world.sessions.slice()
  sessions[epoch - 1] = { ...session(world, epoch), ...change }
  return { ...world, sessions }
}

/** The session is forgotten, but for what its connection still carries to the client. */
export const forgetSession = (world: World, epoch: number): World =>
  withSession(world, epoch, { ...OVER, outbox: session(world, epoch).outbox })

export const withClient = (world: World, change: Partial<Client>): World => ({
  ...world,
  client: { ...world.client, ...change },
})

export const withPast = (world: World, change: Partial<Past>): World => ({
  ...world,
  past: { ...world.past, ...change },
})

export function at<T>(pair: readonly [T, T], attempt: number, value: T): readonly [T, T] {
  return attempt === 1 ? [value, pair[1]] : [pair[0], value]
}

export const of = <T>(pair: readonly [T, T], attempt: number): T => pair[attempt === 1 ? 0 : 1]

/** To the server: lost if that end of the connection is gone. */
export function toServer(world: World, ...messages: Message[]): World {
  const epoch = world.client.connection
  if (epoch === 0 || session(world, epoch).phase !== 'live') return world
  return withSession(world, epoch, { inbox: [...session(world, epoch).inbox, ...messages] })
}

/** To the client: lost if it no longer holds that connection. */
export function toClient(world: World, epoch: number, sent: Message): World {
  if (world.client.connection !== epoch) return world
  return withSession(world, epoch, { outbox: [...session(world, epoch).outbox, sent] })
}

// ---- values that exist once

const messages = new Map<string, Message>()

export function message(
  kind: Message['kind'],
  attempt = 0,
  { status, code, journal }: Pick<Message, 'status' | 'code' | 'journal'> = {},
): Message {
  const key = `${kind} ${attempt} ${status} ${code} ${journal}`
  const known = messages.get(key) ?? {
    id: messages.size + 1,
    kind,
    attempt,
    ...(status !== undefined ? { status } : {}),
    ...(code !== undefined ? { code } : {}),
    ...(journal !== undefined ? { journal } : {}),
  }
  messages.set(key, known)
  return known
}

const hands = new Map<string, Hand>()

export function hand(step: Hand['step'], cause: Hand['cause'], withdrawn = false): Hand {
  const key = `${step} ${cause} ${withdrawn}`
  const known = hands.get(key) ?? { id: hands.size + 1, step, cause, withdrawn }
  hands.set(key, known)
  return known
}

export const WRITTEN = hand('written', 'claim')

// ---- equality

const PHASES = { live: 0, ending: 1, ended: 2, over: 3 } as const
const bit = (value: boolean): number => (value ? 1 : 0)

/** Two worlds are the same if their keys are. */
export function keyOf(world: World): string {
  const { client, past } = world
  const codes: number[] = [
    world.row.id,
    bit(world.expired) | (world.sessionEpoch << 1) | (bit(world.groupOpen) << 4),
    world.toTell?.id ?? 0,
    client.memory.id,
    bit(client.up) |
      (client.connection << 1) |
      (client.journal << 4) |
      (bit(client.acted) << 6) |
      (bit(client.aborted) << 7) |
      (bit(client.reporting[0]) << 8) |
      (bit(client.reporting[1]) << 9),
    past.said[0] | (past.said[1] << 5) | (bit(past.forwarded[0]) << 10) | (bit(past.forwarded[1]) << 11),
    past.effects[0] | (past.effects[1] << 2) | (past.cancels << 4) | (past.words << 6) | (past.nodeCrashes << 8),
    past.clientCrashes | (past.wipes << 2) | (bit(past.resolvedCompleted) << 4),
  ]
  for (const one of world.sessions) {
    codes.push(
      PHASES[one.phase] |
        (one.journal << 2) |
        (bit(one.statusSeen) << 4) |
        (bit(one.granted) << 5) |
        (bit(one.toMakeReady) << 6) |
        (one.acknowledged << 7) |
        (bit(one.told) << 9),
      (one.hands[0]?.id ?? 0) | ((one.hands[1]?.id ?? 0) << 5),
      one.inbox.length,
    )
    for (const { id } of one.inbox) codes.push(id)
    codes.push(one.outbox.length)
    for (const { id } of one.outbox) codes.push(id)
  }
  return String.fromCharCode.apply(null, codes)
}
