import type { Logger } from 'pino'
import { closeSessions, findLostSessions, openSessions, storeReported } from '../../db/clients.ts'
import type { Db } from '../../db/connect.ts'
import type { ExecutionState } from '../../db/executions.ts'
import type { ClientConfig, ClientStatus } from '../../schemas/clients.ts'
import { AppError } from '../../schemas/errors.ts'
import { createBatcher, type WhenDown } from '../batcher.ts'
import type { Statuses } from '../cluster/statuses.ts'
import type { Ledger } from '../executions/ledger.ts'
import type { Metrics } from '../metrics/metrics.ts'
import type { Outlet } from '../transport.ts'
import { within } from '../within.ts'
import { createKeyedLock } from './keyed-lock.ts'

/** How a client's own `commands` topic stands: nothing is sent before it is granted at QoS 1. */
type Subscription = 'none' | 'refused_at_qos_0' | 'granted'

interface InHand {
  /** What a cancel that came meanwhile has made of it. */
  withdrawn: ExecutionState | null
}

/** One live connection of a client, as the control plane sees it. */
export interface Session {
  readonly clientId: string
  /** Grows with every session of any client: an older one can never overwrite what a newer one did. */
  readonly epoch: number
  readonly outlet: Outlet
  config: ClientConfig
  /** Names the client's durable memory; what this very session published, not what was retained. */
  journalId: string | null
  statusSeen: boolean
  subscription: Subscription
  /** The zones whose commands it subscribes to, and whether to the broadcast ones, all at QoS 1. */
  zones: ReadonlySet<string>
  broadcast: boolean
  ending: boolean
  /** Attempts that were written to the socket and whose PUBACK is not committed, as `commandId attempt`. */
  readonly forwarded: Set<string>
  /** Attempts that are claimed and not known to be written yet, as `commandId attempt`. */
  readonly inHand: Map<string, InHand>
  /** The last claim took all that waited, and nobody has said since that there is more. */
  drained: boolean
  /** Places that are free in the client's window: no fewer are, as long as no other node changes what the client has. */
  room: number
  /** Something failed between a claim and its write: the next claim looks for what is left over. */
  uncertain: boolean
}

/** The live sessions of this node. */
export interface Sessions {
  get(clientId: string): Session | undefined
  all(): Iterable<Session>
  /**
   * Ends the client's older session, over whichever transport, then makes this the current one and shows it online.
   * Throws CLIENT_DISABLED if it was disabled meanwhile, UNAVAILABLE if the older one cannot be ended.
   */
  open(clientId: string, config: ClientConfig, outlet: Outlet): Promise<Session>
  /** Commits the client's own status; from then on the session speaks for that journal. */
  status(session: Session, status: ClientStatus, whenDown: WhenDown): Promise<void>
  /** Keeps the status of a client that has no session here. Throws UNAVAILABLE while PostgreSQL is down. */
  reported(clientId: string, status: ClientStatus): Promise<void>
  /** Settles what the end of the session decides, then shows the client offline. Call it once all its messages are committed. */
  end(session: Session): Promise<void>
  /** Another node has a session of this client: an older one here is over. */
  newerElsewhere(other: Ended): void
  /** Whether a login got no answer from PostgreSQL: its session may be in the table, and lives nowhere. */
  mayHaveLost(): boolean
  /** Ends what the table calls sessions of this node, or of nodes that are gone, and no connection has: their clients are shown offline. */
  endLost(): Promise<void>
  /** Whether presence waits for PostgreSQL. */
  failing(): boolean
  stop(): Promise<void>
}

type Ended = Pick<Session, 'clientId' | 'epoch'>

export interface SessionsDeps {
  db: Db
  log: Logger
  node: string
  metrics: Metrics
  ledger: Ledger
  statuses: Statuses
  /** Resolves when nothing more will be forwarded to the session. */
  dispatchIdle(session: Session): Promise<void>
  /** An older session that has not ended by then is taken for stuck. */
  endTimeoutSeconds: number
}

export function createSessions(deps: SessionsDeps): Sessions {
  const live = new Map<string, Session>()
  let lost = false
  const opens = createKeyedLock()
  const opening = createBatcher<string, number | undefined>({
    run: async (clientIds) => {
      const epochs = await openSessions(deps.db, deps.node, clientIds)
      return clientIds.map((id) => epochs.get(id))
    },
    max: 500,
    whenDown: 'reject',
    meter: deps.metrics.batcher('session_open'),
  })
  const closing = createBatcher<Ended, string | undefined>({
    run: async (sessions) => {
      const since = await closeSessions(deps.db, sessions)
      return sessions.map((session) => since.get(session.clientId))
    },
    max: 500,
    whenDown: 'hold',
    meter: deps.metrics.batcher('session_end'),
  })
  const reporting = createBatcher<{ clientId: string; epoch: number | null; reported: ClientStatus }, void>({
    run: async (statuses) => {
      await storeReported(deps.db, statuses)
      return statuses.map(() => undefined)
    },
    max: 500,
    whenDown: 'hold',
    meter: deps.metrics.batcher('client_status'),
  })

  async function openNew(clientId: string, config: ClientConfig, outlet: Outlet): Promise<Session> {
    const epoch = await opening.add(clientId).catch((error) => {
      lost = true
      throw error
    })
    if (epoch === undefined) throw new AppError('CLIENT_DISABLED', `client ${clientId} is disabled or deleted`)
    const session: Session = {
      clientId,
      epoch,
      outlet,
      config,
      journalId: null,
      statusSeen: false,
      subscription: 'none',
      zones: new Set(),
      broadcast: false,
      ending: false,
      forwarded: new Set(),
      inHand: new Map(),
      drained: false,
      room: 0,
      uncertain: false,
    }
    live.set(clientId, session)
    await deps.statuses.show(session, { state: 'online' })
    // Two nodes may open sessions at one moment: the newer one was told here before this one was known. Not now: nobody has it yet.
    if (deps.statuses.isSuperseded(session)) setImmediate(() => closeOlder(session))
    return session
  }

  /** Sessions of one client begin and end in their order; what the end of the older one decides, the new one must see. */
  async function endOlder(older: Session): Promise<void> {
    await within(deps.endTimeoutSeconds, older.outlet.close(older, 'another connection of this client takes over'))
  }

  async function showOffline(ended: Ended): Promise<void> {
    const since = await closing.add(ended)
    if (live.get(ended.clientId)?.epoch === ended.epoch) live.delete(ended.clientId)
    if (since !== undefined) await deps.statuses.show(ended, { state: 'offline', since })
  }

  function closeOlder(session: Session): void {
    void session.outlet.close(session, 'a newer session of this client is on another node')
  }

  /** No login of the client is under way meanwhile: one that is would be taken for lost. */
  async function endIfLost(found: Ended): Promise<void> {
    const release = await opens.acquire(found.clientId)
    try {
      if (live.get(found.clientId)?.epoch !== found.epoch) await showOffline(found)
    } finally {
      release()
    }
  }

  return {
    get: (clientId) => live.get(clientId),
    all: () => live.values(),

    async open(clientId, config, outlet) {
      const release = await opens.acquire(clientId)
      try {
        const older = live.get(clientId)
        if (older) await endOlder(older)
        return await openNew(clientId, config, outlet)
      } finally {
        release()
      }
    },

    async status(session, status, whenDown) {
      await reporting.add({ clientId: session.clientId, epoch: session.epoch, reported: status }, whenDown)
      session.journalId = status.journalId ?? null
      session.statusSeen = true
    },

    reported: (clientId, status) => reporting.add({ clientId, epoch: null, reported: status }, 'reject'),

    async end(session) {
      session.ending = true
      await deps.dispatchIdle(session)
      await deps.ledger.applyToOpen(session.clientId, { type: 'session-ended', epoch: session.epoch }, null)
      await showOffline(session)
    },

    newerElsewhere({ clientId, epoch }) {
      const session = live.get(clientId)
      if (session && session.epoch < epoch) closeOlder(session)
    },

    mayHaveLost: () => lost,
    async endLost() {
      const living = [...live.values()].map(({ epoch }) => epoch)
      await Promise.all((await findLostSessions(deps.db, deps.node, living)).map(endIfLost))
      lost = false
    },

    failing: () => [opening, closing, reporting].some((batcher) => batcher.failing()),
    async stop() {
      await Promise.all([opening.stop(), closing.stop(), reporting.stop()])
    },
  }
}

/** From now on its client's configuration is this one. What was counted by another window is counted anew. */
export function configure(session: Session, config: ClientConfig): void {
  session.config = config
  session.drained = false
}
