import type { Db } from '../../db/connect.ts'
import {
  type Claimable,
  type ExecutionKey,
  type ExecutionState,
  loadMessages,
  MAX_URGENT,
  URGENT,
} from '../../db/executions.ts'
import type { Target } from '../../schemas/commands.ts'
import type { Tell } from '../cluster/hints.ts'
import type { Session } from '../sessions/sessions.ts'
import type { Transport } from '../transport.ts'
import { carries, type Group, listens } from './group.ts'
import { attemptKey, commandMessage, createHandOver, type HandOverDeps, writable } from './hand-over.ts'
import type { Applied, Claimed, ClaimingSession } from './ledger.ts'
import type { Input } from './lifecycle.ts'

/** Hands the ledger's work to the sessions of this node. */
export interface Dispatch {
  /** There may be something to claim. Cheap, and safe to call at any time. */
  wake(session: Session | undefined): void
  /** The same for the client's session, wherever it is. */
  wakeClient(clientId: string): void
  /** A command for one client was stored a moment ago. */
  offer(work: NewWork): void
  /** The session can be written to, or its status came: settle, repeat or ask about what earlier sessions left open, then claim. */
  ready(session: Session): Promise<void>
  /** The client's PUBACK of an attempt; resolves after the commit. */
  acknowledged(session: Session, handover: { commandId: string; attempt: number }): Promise<void>
  /** Tells the client that the command is withdrawn, or asks about an unknown outcome, if that can be now; otherwise `ready` will. */
  sendCancel(key: ExecutionKey, state: ExecutionState): Promise<void>
  /** Resolves when nothing of the session is in hand any more: what could not be written is released. */
  idle(session: Session): Promise<void>
  /**
   * Announces a group command before it is stored: what the sessions of this node claim of it goes out in one publish on the
   * shared topic, and so on each other node. Whoever is not in that publish gets it on the own topic, as soon as it can be claimed.
   */
  openGroup(commandId: string, target: Target): OpenGroup
  /** A group command that another node has stored: it has its one publish here, too. */
  joinGroup(commandId: string, target: Target): Promise<void>
}

/** A new execution, and what its command's message carries. */
export type NewWork = Omit<Claimable, 'epoch' | 'room'>

interface OpenGroup {
  /**
   * Once the command is stored: claims for the sessions of its clients, then publishes. To be called in any case: a command that was
   * refused has no clients; one that was stored without an answer may have been claimed for some.
   */
  send(clientIds: string[]): Promise<void>
}

export interface DispatchDeps extends HandOverDeps {
  db: Db
  transport: Transport
  /** The live sessions of this node. */
  session(clientId: string): Session | undefined
  sessions(): Iterable<Session>
  /** Tells the other nodes, if there are any. */
  tell: Tell
  /** Living nodes beside this one. */
  others(): number
}

/** Whether nothing is left of what waited: the claim took less than it could have. */
const isAll = (claimed: Claimed[]): boolean => {
  const urgent = claimed.filter(({ priority }) => priority === URGENT).length
  return urgent < MAX_URGENT && claimed.length - urgent < (claimed[0]?.room ?? 0)
}

export function createDispatch(deps: DispatchDeps): Dispatch {
  const handOver = createHandOver(deps)
  /** One claim at a time per session; a wake during it makes one more. */
  const busy = new WeakMap<Session, { again: boolean; done: Promise<void> }>()

  /** Group commands that are being stored or claimed. */
  const groups = new Map<string, Group>()

  function wake(session: Session | undefined): void {
    if (!session || !writable(session)) return
    session.drained = false
    const current = busy.get(session)
    if (current) current.again = true
    else begin(session)
  }

  function begin(session: Session, only?: Claimable): void {
    const state = { again: false, done: Promise.resolve() }
    busy.set(session, state)
    state.done = claimAll(session, state, only).finally(() => busy.delete(session))
  }

  /** Nothing else can wait for it, and its window is open. Another node may have stored something older. */
  const mayClaimAlone = (session: Session): boolean =>
    session.drained && !session.uncertain && session.room > 0 && !busy.has(session) && deps.others() === 0

  function offer(work: NewWork): void {
    const session = deps.session(work.clientId)
    if (!session || work.state.notBefore !== null || !mayClaimAlone(session)) wakeClient(work.clientId)
    else if (writable(session)) begin(session, { ...work, epoch: session.epoch, room: session.room })
  }

  function wakeClient(clientId: string): void {
    const session = deps.session(clientId)
    if (session) wake(session)
    else deps.tell('work', { clientId })
  }

  async function claimAll(session: Session, state: { again: boolean }, only?: Claimable): Promise<void> {
    let next = only
    do {
      state.again = false
      try {
        if (!(await claimOnce(session, next))) state.again = true
      } catch (error) {
        session.uncertain = true
        deps.log.error({ err: error, clientId: session.clientId }, 'claim failed')
      }
      next = undefined
    } while (state.again && writable(session))
  }

  /** Answers false if what it was to claim alone was not as it was thought to be. */
  async function claimOnce(session: Session, only: Claimable | undefined): Promise<boolean> {
    const claimed = await deps.ledger.claim(claimant(session), only)
    if (only === undefined) {
      session.uncertain = false
      session.drained = isAll(claimed)
    }
    session.room = (claimed[0]?.room ?? 0) - claimed.length
    if (claimed.length > 0) deps.passed?.('claim-committed')
    for (const item of claimed) handOver.take(session, item.commandId, item.state)
    for (const item of claimed) {
      const group = groups.get(item.commandId)
      if (group && carries(group, session, item)) group.claims.set(session, item)
      else await handOver.forwardOrRelease(session, item)
    }
    return only === undefined || claimed.length > 0
  }

  /** What the ledger has to know of a session: nothing that is on its way, or about to be, is sent once more. */
  const claimant = (session: Session): ClaimingSession => ({
    clientId: session.clientId,
    epoch: session.epoch,
    journalId: session.journalId,
    uncertain: session.uncertain,
    isOnItsWay: (commandId, attempt) => {
      const key = attemptKey(commandId, attempt)
      return session.forwarded.has(key) || session.inHand.has(key)
    },
  })

  function openGroup(commandId: string, target: Target): OpenGroup {
    const { send } = announce(commandId, target)
    return {
      send(clientIds) {
        if (clientIds.length > 0) deps.tell('group', { commandId, target })
        return send(clientIds)
      },
    }
  }

  /** Whom it is for, only the table says: the sessions that it can be for claim, and some get nothing. */
  function joinGroup(commandId: string, target: Target): Promise<void> {
    const isMeant = ({ config }: Session): boolean => target.kind !== 'zone' || config.zones.includes(target.zone)
    const clientIds = [...deps.sessions()].filter(isMeant).map(({ clientId }) => clientId)
    return announce(commandId, target).send(clientIds)
  }

  function announce(commandId: string, target: Target): OpenGroup {
    const { promise: done, resolve: markDone } = Promise.withResolvers<void>()
    const group: Group = { target, claims: new Map(), open: true, done }
    groups.set(commandId, group)
    return {
      async send(clientIds) {
        try {
          const sessions = clientIds.map(deps.session).filter((session) => session !== undefined)
          await Promise.all(sessions.filter((session) => listens(group, session)).map(claimNow))
          group.open = false
          await publishGroup(group)
          for (const session of sessions) if (!group.claims.has(session)) wake(session)
        } catch (error) {
          for (const session of group.claims.keys()) session.uncertain = true
          deps.log.error({ err: error, commandId }, 'group publish failed')
        } finally {
          groups.delete(commandId)
          markDone()
        }
      },
    }
  }

  /** Claims, and waits until that claim is through, whether this call started it or it was under way. */
  async function claimNow(session: Session): Promise<void> {
    wake(session)
    await busy.get(session)?.done
  }

  async function publishGroup(group: Group): Promise<void> {
    const [first] = group.claims.values()
    if (!first) return
    const key = attemptKey(first.commandId, first.state.attempt)
    const sessions = [...group.claims.keys()]
    const live = sessions.filter((session) => writable(session) && !session.inHand.get(key)?.withdrawn)
    for (const session of live) session.forwarded.add(key)
    try {
      const message = commandMessage(first, first.state, first.now)
      const written = await deps.transport.forwardShared(group.target, live, message)
      if (written.size > 0) deps.passed?.('forwarded')
      for (const session of live) if (!written.has(session.clientId)) session.forwarded.delete(key)
      await Promise.all(
        sessions.map((session) =>
          handOver.putDown(
            session,
            { commandId: first.commandId, clientId: session.clientId },
            first.state.attempt,
            written.has(session.clientId),
          ),
        ),
      )
    } finally {
      for (const session of sessions) session.inHand.delete(key)
    }
  }

  /** The session ends: it does not wait for the claims of the others, only for a publish that has begun. */
  async function leaveGroup(group: Group, session: Session): Promise<void> {
    const item = group.claims.get(session)
    if (!item) return
    if (!group.open) return group.done
    group.claims.delete(session)
    await handOver.putDown(session, item, item.state.attempt, false)
  }

  async function ready(session: Session): Promise<void> {
    const open = await deps.ledger.applyToOpen(session.clientId, sessionReady(session), claimant(session))
    const toSend = open.filter((item) => item.effect === 'send-command')
    for (const item of toSend) handOver.take(session, item.commandId, item.after)
    try {
      for (const item of open)
        if (item.effect === 'send-cancel') await handOver.writeCancel(session, item.commandId, item.after)
      await redeliver(session, toSend)
    } finally {
      for (const item of toSend) session.inHand.delete(attemptKey(item.commandId, item.after.attempt))
    }
    wake(session)
  }

  const sessionReady = ({ epoch, journalId, statusSeen }: Session): Input => ({
    type: 'session-ready',
    epoch,
    journalId,
    statusSeen,
  })

  async function redeliver(session: Session, items: (ExecutionKey & Applied)[]): Promise<void> {
    if (items.length === 0) return
    const messages = await loadMessages(
      deps.db,
      items.map((item) => item.commandId),
    )
    const ordered = items
      .map((item) => ({ item, parts: messages.get(item.commandId) }))
      .sort(
        (a, b) => (b.parts?.priority ?? 0) - (a.parts?.priority ?? 0) || (a.item.commandId < b.item.commandId ? -1 : 1),
      )
    for (const { item, parts } of ordered) {
      if (!parts) continue
      const message = commandMessage({ ...parts, commandId: item.commandId }, item.after, item.now)
      const forwarded = await handOver.forward(session, item, item.after, message)
      await handOver.putDown(session, item, item.after.attempt, forwarded)
    }
  }

  async function sendCancel({ commandId, clientId }: ExecutionKey, state: ExecutionState): Promise<void> {
    const session = deps.session(clientId)
    if (session) await handOver.writeCancel(session, commandId, state)
    else deps.tell('cancel', { commandId, clientId })
  }

  return {
    wake,
    wakeClient,
    offer,
    ready,
    openGroup,
    joinGroup,
    sendCancel,
    async acknowledged(session, handover) {
      await deps.ledger.apply(
        { commandId: handover.commandId, clientId: session.clientId },
        { type: 'puback', epoch: session.epoch, attempt: handover.attempt },
      )
      session.forwarded.delete(attemptKey(handover.commandId, handover.attempt))
    },
    async idle(session) {
      await busy.get(session)?.done
      await Promise.all([...groups.values()].map((group) => leaveGroup(group, session)))
    },
  }
}
