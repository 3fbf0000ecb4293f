import { isOutcome, type OutcomeStatus } from '../../agent/attempts.ts'
import { type Memory, outcome, stateOf, toReport } from './memories.ts'
import type { SessionStep, WorldStep } from './steps.ts'
import {
  ATTEMPTS,
  at,
  type Client,
  journalId,
  type Message,
  type Model,
  message,
  NEW_SESSION,
  of,
  SAID,
  session,
  toServer,
  type World,
  withClient,
  withPast,
  withSession,
} from './world.ts'

// The device. What it makes of a command, a cancel, a start and an end is agent/attempts.ts, whether it keeps that in a journal or
// in its memory. Without a journal it acknowledges at once, forgets when it crashes, and says each outcome once.

const keepsJournal = (world: World): boolean => world.client.journal !== 0

/** The connection's next message, if it is one of these. */
function next({ client, sessions }: World, kind: Message['kind']): Message | undefined {
  const first = client.up && client.connection !== 0 ? sessions[client.connection - 1]?.outbox[0] : undefined
  return first?.kind === kind ? first : undefined
}

const taken = (world: World): World =>
  withSession(world, world.client.connection, { outbox: session(world, world.client.connection).outbox.slice(1) })

const remember = (world: World, memory: Memory): World => withClient(world, { memory })

const UNSENT: Client['reporting'] = [false, false]
const AT_REST = { acted: false, aborted: false } as const

/** Whatever is still on its way on that connection never arrives. */
function disconnected(world: World): World {
  const { connection } = world.client
  if (connection === 0) return world
  return withClient(withSession(world, connection, { outbox: [] }), { connection: 0, reporting: UNSENT })
}

const running = ({ client }: World): number | undefined =>
  ATTEMPTS.find((attempt) => stateOf(client.memory, attempt) === 'started')

/** At the start of a run, and again on the next connection. */
const sayRunning = (attempt: number): Message => message('report', attempt, { status: 'running' })

function crashed(world: World, memory: Memory): World {
  const gone = withClient(disconnected(world), { up: false, ...AT_REST, memory })
  return withPast(gone, { clientCrashes: world.past.clientCrashes + 1 })
}

function finished(world: World, model: Model, attempt: number, status: OutcomeStatus): World {
  const { memory } = world.client
  const told = model.memories.after(memory, `finish ${attempt} ${status}`, (attempts) =>
    model.agent.finish(attempts, attempt, outcome(status)),
  )
  return withClient(world, { memory: told, ...AT_REST })
}

export const CONNECTION: WorldStep[] = [
  {
    name: 'the client connects',
    by: 'client',
    take(world, { bounds }) {
      const { client, sessions } = world
      if (!client.up || client.connection !== 0 || sessions.length >= bounds.sessions) return undefined
      // One node ends the older session first, and closes what a crash left before it opens its doors.
      const free = sessions.every(({ phase }) => phase === 'over') && world.sessionEpoch === 0
      if (bounds.nodes === 1 && !free) return undefined
      const epoch = sessions.length + 1
      const attempt = running(world)
      const inbox = [
        ...(keepsJournal(world) ? [message('status', client.journal)] : []),
        message('subscribe'),
        ...(attempt ? [sayRunning(attempt)] : []),
      ]
      const entered = { ...world, sessionEpoch: epoch, sessions: [...sessions, { ...NEW_SESSION, inbox }] }
      return withClient(entered, { connection: epoch })
    },
  },
  {
    name: 'the client loses its end of the connection',
    by: 'fault',
    take: (world) => (world.client.connection !== 0 ? disconnected(world) : undefined),
  },
  {
    name: 'the client reads a command',
    by: 'client',
    take(world, { memories, agent }) {
      const command = next(world, 'command')
      if (!command) return undefined
      const { attempt } = command
      const memory = memories.after(world.client.memory, `receive ${attempt}`, (all) => agent.receive(all, attempt))
      const read = remember(taken(world), memory)
      if (!keepsJournal(world)) return toServer(read, message('puback', attempt))
      const { connection } = world.client
      const outbox = [message('kept', attempt), ...session(read, connection).outbox]
      return withSession(read, connection, { outbox })
    },
  },
  {
    name: 'the client PUBACKs the command that it has in its journal',
    by: 'client',
    take(world) {
      const kept = next(world, 'kept')
      return kept && toServer(taken(world), message('puback', kept.attempt))
    },
  },
  {
    name: 'the client reads a cancel',
    by: 'client',
    take(world, { memories, agent }) {
      const asked = next(world, 'cancel')
      if (!asked) return undefined
      const { attempt } = asked
      const own = keepsJournal(world) && asked.journal === journalId(world.client.journal)
      let aborted = world.client.aborted
      const memory = memories.after(
        world.client.memory,
        `cancel ${attempt} ${own}`,
        (all) => agent.cancel(all, attempt, own).attempts,
      )
      aborted ||= agent.cancel(world.client.memory.attempts, attempt, own).abort !== undefined
      return withClient(taken(world), { memory, aborted })
    },
  },
  {
    name: 'the client gets the PUBACK of its report',
    by: 'client',
    take(world, { memories, agent }) {
      const answer = next(world, 'answer')
      if (!answer) return undefined
      const { attempt } = answer
      const reporting = at(world.client.reporting, attempt, false)
      const read = withClient(taken(world), { reporting })
      if (!keepsJournal(world)) return read
      return remember(
        read,
        memories.after(world.client.memory, `reported ${attempt}`, (all) => agent.markReported(all, attempt)),
      )
    },
  },
  {
    name: 'the client crashes',
    by: 'fault',
    take(world, { bounds, memories }) {
      const { up, memory } = world.client
      if (!up || world.past.clientCrashes >= bounds.clientCrashes) return undefined
      return crashed(world, keepsJournal(world) ? memory : memories.nothing)
    },
  },
  {
    name: 'the client crashes and its journal is lost',
    by: 'fault',
    take(world, { bounds, memories }) {
      const { past, client } = world
      const allowed = past.clientCrashes < bounds.clientCrashes && past.wipes < bounds.wipes
      if (!client.up || !allowed || !keepsJournal(world)) return undefined
      const wiped = withPast(crashed(world, memories.nothing), { wipes: past.wipes + 1 })
      return withClient(wiped, { journal: client.journal + 1 })
    },
  },
  {
    name: 'the client starts again',
    by: 'client',
    take(world, { memories, agent }) {
      const { up, memory } = world.client
      return up ? undefined : withClient(world, { up: true, memory: memories.after(memory, 'restart', agent.restart) })
    },
  },
]

/** Here the second parameter is the attempt. */
export const WORK: SessionStep[] = [
  {
    name: 'the client reports the outcome',
    by: 'client',
    take(world, attempt, { memories, agent }) {
      const { client, past } = world
      const report = toReport(client.memory, attempt)
      if (!client.up || client.connection === 0 || !report || of(client.reporting, attempt)) return undefined
      const said = of(past.said, attempt) | SAID[report.status]
      const told = toServer(withPast(world, { said: at(past.said, attempt, said) }), message('report', attempt, report))
      if (keepsJournal(world)) return withClient(told, { reporting: at(client.reporting, attempt, true) })
      return remember(
        told,
        memories.after(client.memory, `reported ${attempt}`, (all) => agent.markReported(all, attempt)),
      )
    },
  },
  {
    name: 'the client starts the run',
    by: 'client',
    take(world, attempt, { memories, agent }) {
      const { up, memory } = world.client
      if (!up || !agent.mayStart(memory.attempts, attempt)) return undefined
      const started = memories.after(memory, `start ${attempt}`, (all) => agent.start(all, attempt))
      return toServer(withClient(world, { memory: started, ...AT_REST }), sayRunning(attempt))
    },
  },
  {
    name: 'the client finds it expired',
    by: 'client',
    take(world, attempt, { memories, agent }) {
      const { up, memory } = world.client
      if (!up || !world.expired || !agent.mayStart(memory.attempts, attempt)) return undefined
      return remember(
        world,
        memories.after(memory, `expire ${attempt}`, (all) => agent.giveUp(all, attempt, outcome('expired'))),
      )
    },
  },
  {
    name: 'THE EFFECT',
    by: 'client',
    take(world, attempt) {
      const { client, past } = world
      if (!client.up || client.acted || stateOf(client.memory, attempt) !== 'started') return undefined
      const effects = at(past.effects, attempt, Math.min(3, of(past.effects, attempt) + 1))
      const acted = withPast(withClient(world, { acted: true }), { effects })
      const again = attempt === 2 && keepsJournal(world) && stateOf(client.memory, 1) === 'completed'
      return again ? { ...acted, broken: 'R9 the agent runs again what its journal says is completed' } : acted
    },
  },
  {
    name: 'the run fails without an effect',
    by: 'client',
    take: (world, attempt, model) =>
      world.client.up && !world.client.acted && stateOf(world.client.memory, attempt) === 'started'
        ? finished(world, model, attempt, 'failed')
        : undefined,
  },
  {
    name: 'the run stops because of the cancel, without an effect',
    by: 'client',
    take: (world, attempt, model) =>
      world.client.up &&
      world.client.aborted &&
      !world.client.acted &&
      stateOf(world.client.memory, attempt) === 'started'
        ? finished(world, model, attempt, 'cancelled')
        : undefined,
  },
  {
    name: 'the run completes',
    by: 'client',
    take: (world, attempt, model) =>
      world.client.up && world.client.acted && stateOf(world.client.memory, attempt) === 'started'
        ? finished(world, model, attempt, 'completed')
        : undefined,
  },
]

/** The client itself cannot tell: its journal has that it was interrupted. */
export const cannotTell = ({ attempts }: Memory): boolean =>
  attempts.some(({ state }) => isOutcome(state) && state === 'outcome_unknown')
