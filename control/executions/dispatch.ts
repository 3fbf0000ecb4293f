import type { Db } from '../../db/connect.ts'
import { type ExecutionKey, type ExecutionState, loadMessages, MAX_URGENT, URGENT } from '../../db/executions.ts'
import type { EarlyClaim } from '../../db/new-commands.ts'
import type { Target } from '../../schemas/commands.ts'
import type { Tell } from '../cluster/hints.ts'
import type { Session } from '../sessions/sessions.ts'
import type { Transport } from '../transport.ts'
import { createTurns } from '../turns.ts'
import { carries, type Group, listens } from './group.ts'
import { attemptKey, commandMessage, createHandOver, type HandOverDeps, writable } from './hand-over.ts'
import type { Applied, Claimed, ClaimingSession, NewWork } from './ledger.ts'
import type { Input } from './lifecycle.ts'

/** Hands the ledger's work to the sessions of this node. */
export interface Dispatch {
  /** There may be something to claim. Cheap, and safe to call at any time. */
  wake(session: Session | undefined): void
  /** The same for the client's session, wherever it is. */
  wakeClient(clientId: string): void
  /** The session can be written to, or its status came: settle, repeat or ask about what earlier sessions left open, then claim. */
  ready(session: Session): Promise<void>
  /** The client's PUBACK of an attempt; resolves after the commit. */
  acknowledged(session: Session, handover: { commandId: string; attempt: number }): Promise<void>
  /** Tells the client that the command is withdrawn, or asks about an unknown outcome, if that can be now; otherwise `ready` will. */
  sendCancel(key: ExecutionKey, state: ExecutionState): Promise<void>
  /** Resolves when nothing of the session is in hand any more: what could not be written is released. */
  idle(session: Session): Promise<void>
  /**
   * Announces a command before it is stored. What of a group command the sessions of this node claim goes out in one publish on the
   * shared topic, and so on each other node. Whoever is not in that publish gets it on the own topic, as soon as it can be claimed.
   */
  announce(commandId: string, target: Target, isDue: boolean): Announced
  /** A group command that another node has stored: it has its one publish here, too. */
  joinGroup(commandId: string, target: Target): Promise<void>
}

/** A command that is about to be stored. */
interface Announced {
  /** The sessions, by client, that wait for it with nothing else to do: it may be stored as claimed by them. */
  readonly claims: ReadonlyMap<string, EarlyClaim>
  /** What became of it: stored, not stored, or nobody knows. To be called in any case. */
  settle(outcome: Outcome): void
}

type Outcome = StoredCommand | 'refused' | 'unknown'

export interface StoredCommand {
  /** Whom it is for. */
  clientIds: string[]
  /** Those for whom it was stored as claimed. */
  claimed: ReadonlySet<string>
  work(clientId: string): NewWork
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

const FIRST_ATTEMPT = 1
/** No client's id. */
const GROUPS = '*'
const NOBODY: Pick<StoredCommand, 'clientIds' | 'claimed'> = { clientIds: [], claimed: new Set() }

interface OpenGroup extends Group {
  markDone(): void
}

/** Whether nothing is left of what waited: the claim took less than it could have. */
const isAll = (claimed: { priority: number; room: number }[]): boolean => {
  const urgent = claimed.filter(({ priority }) => priority === URGENT).length
  return urgent < MAX_URGENT && claimed.length - urgent < (claimed[0]?.room ?? 0)
}

export function createDispatch(deps: DispatchDeps): Dispatch {
  const handOver = createHandOver(deps)
  /** One claim at a time per session; a wake during it makes one more. */
  const busy = new WeakMap<Session, { again: boolean; done: Promise<void> }>()

  /** Ten thousand sessions take a group command. */
  const turns = createTurns()
  /** How many commands were announced, for each client and for groups, of which it is not known yet whether they are stored. */
  const unsettled = new Map<string, number>()
  /** Group commands that are being stored or claimed. */
  const groups = new Map<string, Group>()

  function wake(session: Session | undefined): void {
    if (!session) return
    session.drained = false
    if (!writable(session)) return
    const current = busy.get(session)
    if (current) current.again = true
    else begin(session, () => claimOnce(session))
  }

  function begin(session: Session, first: () => Promise<unknown>): void {
    const state = { again: false, done: Promise.resolve() }
    busy.set(session, state)
    state.done = claimAll(session, state, first).finally(() => busy.delete(session))
  }

  /** Nothing else can wait for it, or is being stored, and its window is open. Another node may have stored something older. */
  const takesAtOnce = (session: Session): boolean =>
    writable(session) &&
    !unsettled.has(GROUPS) &&
    !unsettled.has(session.clientId) &&
    session.drained &&
    !session.uncertain &&
    session.room > 0 &&
    !busy.has(session) &&
    deps.others() === 0

  function wakeClient(clientId: string): void {
    const session = deps.session(clientId)
    if (session) wake(session)
    else deps.tell('work', { clientId })
  }

  async function claimAll(session: Session, state: { again: boolean }, first: () => Promise<unknown>): Promise<void> {
    let next = first
    do {
      state.again = false
      try {
        await next()
      } catch (error) {
        session.uncertain = true
        deps.log.error({ err: error, clientId: session.clientId }, 'claim failed')
      }
      next = () => claimOnce(session)
    } while (state.again && writable(session))
  }

  async function claimOnce(session: Session): Promise<void> {
    const claimed = await deps.ledger.claim(claimant(session))
    session.uncertain = false
    // Who was woken meanwhile may have more.
    session.drained = isAll(claimed) && busy.get(session)?.again === false
    session.room = (claimed[0]?.room ?? 0) - claimed.length
    await handOut(session, claimed)
  }

  /** It is in hand before it is stored: a cancel that comes at once must not overtake it. */
  async function takeEarly(session: Session, commandId: string, claim: EarlyClaim, stored: Outcome): Promise<void> {
    if (stored === 'unknown') session.uncertain = true
    if (typeof stored === 'string' || !stored.claimed.has(session.clientId)) {
      session.inHand.delete(attemptKey(commandId, FIRST_ATTEMPT))
      return
    }
    session.room -= 1
    await handOut(session, [deps.ledger.begin(stored.work(session.clientId), claim)])
  }

  async function handOut(session: Session, claimed: Claimed[]): Promise<void> {
    if (claimed.length > 0) deps.passed?.('claim-committed')
    for (const item of claimed) handOver.take(session, item.commandId, item.state.attempt)
    for (const item of claimed) {
      const group = groups.get(item.commandId)
      if (group && carries(group, session, item)) group.claims.set(session, item)
      else await handOver.forwardOrRelease(session, item)
    }
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

  function announce(commandId: string, target: Target, isDue: boolean): Announced {
    const settlers: ((outcome: Outcome) => void)[] = []
    const group = target.kind === 'client' ? undefined : openGroup(commandId, target)
    const claims = new Map<string, EarlyClaim>()
    for (const session of isDue ? sessionsOf(target) : []) {
      if (!takesAtOnce(session)) continue
      const claim = { epoch: session.epoch, journalId: session.journalId }
      claims.set(session.clientId, claim)
      handOver.take(session, commandId, FIRST_ATTEMPT)
      const { promise, resolve } = Promise.withResolvers<void>()
      settlers.push((outcome) => resolve(takeEarly(session, commandId, claim, outcome)))
      begin(session, () => promise)
    }
    count(target, 1)
    return {
      claims,
      settle(outcome) {
        count(target, -1)
        const { clientIds, claimed } = typeof outcome === 'string' ? NOBODY : outcome
        if (!group) {
          for (const settle of settlers) settle(outcome)
          for (const clientId of clientIds) if (!claimed.has(clientId)) wakeClient(clientId)
          return
        }
        for (const settle of settlers) turns.run(() => settle(outcome))
        if (clientIds.length > 0) deps.tell('group', { commandId, target })
        void sendGroup(commandId, group, sessionsHere(clientIds), claimed)
      },
    }
  }

  function count(target: Target, step: 1 | -1): void {
    const whose = target.kind === 'client' ? target.clientId : GROUPS
    const left = (unsettled.get(whose) ?? 0) + step
    if (left === 0) unsettled.delete(whose)
    else unsettled.set(whose, left)
  }

  /** The sessions here that a command can be for. Whom a group command is for, only the table says. */
  function sessionsOf(target: Target): Session[] {
    if (target.kind === 'client') return sessionsHere([target.clientId])
    const isMeant = ({ config }: Session): boolean => target.kind !== 'zone' || config.zones.includes(target.zone)
    return [...deps.sessions()].filter(isMeant)
  }

  const sessionsHere = (clientIds: string[]): Session[] =>
    clientIds.map(deps.session).filter((session) => session !== undefined)

  const joinGroup = (commandId: string, target: Target): Promise<void> =>
    sendGroup(commandId, openGroup(commandId, target), sessionsOf(target), NOBODY.claimed)

  function openGroup(commandId: string, target: Target): OpenGroup {
    const { promise: done, resolve: markDone } = Promise.withResolvers<void>()
    const group = { target, claims: new Map(), open: true, done, markDone }
    groups.set(commandId, group)
    return group
  }

  async function sendGroup(
    commandId: string,
    group: OpenGroup,
    sessions: Session[],
    claimed: ReadonlySet<string>,
  ): Promise<void> {
    try {
      const listening = sessions.filter((session) => listens(group, session))
      await Promise.all(
        listening.map((session) => (claimed.has(session.clientId) ? through(session) : claimNow(session))),
      )
      group.open = false
      await publishGroup(group)
      for (const session of sessions) if (!group.claims.has(session) && !claimed.has(session.clientId)) wake(session)
    } catch (error) {
      for (const session of group.claims.keys()) session.uncertain = true
      deps.log.error({ err: error, commandId }, 'group publish failed')
    } finally {
      groups.delete(commandId)
      group.markDone()
    }
  }

  /** Waits until the claim that is under way is through. */
  const through = (session: Session): Promise<void> | undefined => busy.get(session)?.done

  /** Claims, and waits until that claim is through, whether this call started it or it was under way. */
  async function claimNow(session: Session): Promise<void> {
    wake(session)
    await through(session)
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
    for (const item of toSend) handOver.take(session, item.commandId, item.after.attempt)
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
    ready,
    announce,
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
      await through(session)
      await Promise.all([...groups.values()].map((group) => leaveGroup(group, session)))
    },
  }
}
