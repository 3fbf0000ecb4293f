import type { Logger } from 'pino'
import type { Db } from '../../db/connect.ts'
import { type ExecutionKey, type ExecutionState, loadMessages } from '../../db/executions.ts'
import type { Target } from '../../schemas/commands.ts'
import type { CancelMessage, CommandMessage } from '../../schemas/messages.ts'
import type { Session } from '../sessions/sessions.ts'
import type { Transport } from '../transport.ts'
import { carries, type Group, listens } from './group.ts'
import type { Applied, Claimed, ClaimingSession, Ledger } from './ledger.ts'
import { type Input, lastHandedOver } from './lifecycle.ts'

/** Hands the ledger's work to the sessions of this node. */
export interface Dispatch {
  /** There may be something to claim. Cheap, and safe to call at any time. */
  wake(session: Session | undefined): void
  /** The session can be written to, or its status came: settle, repeat or ask about what earlier sessions left open, then claim. */
  ready(session: Session): Promise<void>
  /** The client's PUBACK of an attempt; resolves after the commit. */
  acknowledged(session: Session, handover: { commandId: string; attempt: number }): Promise<void>
  /** Tells the client that the command is withdrawn, if it can be told now; otherwise `ready` will. */
  sendCancel(session: Session | undefined, commandId: string, state: ExecutionState): Promise<void>
  idle(session: Session): Promise<void>
  /**
   * Announces a group command before it is stored: what the sessions of this node claim of it goes out in one publish on the
   * shared topic. Whoever is not in that publish gets it on the own topic, as soon as it can be claimed.
   */
  openGroup(commandId: string, target: Target): OpenGroup
}

interface OpenGroup {
  /** Once the command is stored: claims for the sessions of its clients, then publishes. */
  send(clientIds: string[]): Promise<void>
  /** The command was refused. */
  close(): void
}

export interface DispatchDeps {
  db: Db
  log: Logger
  ledger: Ledger
  transport: Transport
  /** The live sessions of this node. */
  session(clientId: string): Session | undefined
  /** Named points of the way, for the tests that end the process there. */
  passed?(point: 'claim-committed' | 'forwarded'): void
}

const keyOf = (commandId: string, attempt: number): string => `${commandId} ${attempt}`

export function createDispatch(deps: DispatchDeps): Dispatch {
  /** One claim at a time per session; a wake during it makes one more. */
  const busy = new WeakMap<Session, { again: boolean; done: Promise<void> }>()

  /** Group commands that are being stored or claimed. */
  const groups = new Map<string, Group>()

  const writable = (session: Session) => session.subscription === 'granted' && !session.ending

  function wake(session: Session | undefined): void {
    if (!session || !writable(session)) return
    const current = busy.get(session)
    if (current) {
      current.again = true
      return
    }
    const state = { again: false, done: Promise.resolve() }
    busy.set(session, state)
    state.done = claimAll(session, state).finally(() => busy.delete(session))
  }

  async function claimAll(session: Session, state: { again: boolean }): Promise<void> {
    do {
      state.again = false
      try {
        await claimOnce(session)
      } catch (error) {
        session.uncertain = true
        deps.log.error({ err: error, clientId: session.clientId }, 'claim failed')
      }
    } while (state.again && writable(session))
  }

  async function claimOnce(session: Session): Promise<void> {
    const claimed = await deps.ledger.claim(claimant(session))
    session.uncertain = false
    if (claimed.length > 0) deps.passed?.('claim-committed')
    for (const item of claimed) session.inHand.set(keyOf(item.commandId, item.state.attempt), undefined)
    for (const item of claimed) {
      const group = groups.get(item.commandId)
      if (group && carries(group, session, item)) group.claims.set(session, item)
      else await forwardOrRelease(session, item)
    }
  }

  /** What the ledger has to know of a session: nothing that is on its way, or about to be, is sent once more. */
  const claimant = (session: Session): ClaimingSession => ({
    clientId: session.clientId,
    epoch: session.epoch,
    journalId: session.journalId,
    uncertain: session.uncertain,
    isOnItsWay: (commandId, attempt) => {
      const key = keyOf(commandId, attempt)
      return session.forwarded.has(key) || session.inHand.has(key)
    },
  })

  /** An error leaves the claim as it is in the ledger; out of hand, it is found by the next claim. */
  async function forwardOrRelease(session: Session, item: Claimed): Promise<void> {
    const key = keyOf(item.commandId, item.state.attempt)
    try {
      const forwarded = await forwardCommand(session, item, item.state, commandMessage(item, item.state, item.now))
      if (forwarded) await tellCancel(session, key)
      else await deps.ledger.apply(item, { type: 'release', epoch: session.epoch })
    } catch (error) {
      session.uncertain = true
      deps.log.error({ err: error, clientId: session.clientId, commandId: item.commandId }, 'forward failed')
    } finally {
      session.inHand.delete(key)
    }
  }

  function openGroup(commandId: string, target: Target): OpenGroup {
    const group: Group = { target, claims: new Map() }
    groups.set(commandId, group)
    return {
      async send(clientIds) {
        try {
          const sessions = clientIds.map(deps.session).filter((session) => session !== undefined)
          await Promise.all(sessions.filter((session) => listens(group, session)).map(claimNow))
          groups.delete(commandId)
          await publishGroup(group)
          for (const session of sessions) if (!group.claims.has(session)) wake(session)
        } catch (error) {
          // What was claimed and not forwarded is found by the next claim of its session.
          deps.log.error({ err: error, commandId }, 'group publish failed')
        } finally {
          groups.delete(commandId)
        }
      },
      close: () => void groups.delete(commandId),
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
    const key = keyOf(first.commandId, first.state.attempt)
    const sessions = [...group.claims.keys()]
    const live = sessions.filter((session) => writable(session) && !session.inHand.get(key))
    for (const session of live) session.forwarded.add(key)
    let written: ReadonlySet<string> = new Set()
    try {
      written = await deps.transport.forwardShared(group.target, live, commandMessage(first, first.state, first.now))
      if (written.size > 0) deps.passed?.('forwarded')
      await Promise.all(live.map((session) => (written.has(session.clientId) ? tellCancel(session, key) : undefined)))
    } finally {
      const left = sessions.filter((session) => !written.has(session.clientId))
      for (const session of left) session.forwarded.delete(key)
      for (const session of sessions) session.inHand.delete(key)
      await Promise.all(
        left.map(({ clientId, epoch }) =>
          deps.ledger.apply({ commandId: first.commandId, clientId }, { type: 'release', epoch }),
        ),
      )
    }
  }

  async function forwardCommand(
    session: Session,
    key: ExecutionKey,
    state: ExecutionState,
    message: CommandMessage,
  ): Promise<boolean> {
    const forwardedKey = keyOf(key.commandId, state.attempt)
    if (!writable(session) || session.inHand.get(forwardedKey)) return false
    session.forwarded.add(forwardedKey)
    const forwarded = await session.outlet.forward(session, message, {
      commandId: key.commandId,
      attempt: state.attempt,
    })
    if (!forwarded) session.forwarded.delete(forwardedKey)
    else deps.passed?.('forwarded')
    return forwarded
  }

  async function ready(session: Session): Promise<void> {
    const open = await deps.ledger.applyToOpen(session.clientId, sessionReady(session), claimant(session))
    const toSend = open.filter((item) => item.effect === 'send-command')
    for (const item of toSend) session.inHand.set(keyOf(item.commandId, item.after.attempt), undefined)
    try {
      for (const item of open) if (item.effect === 'send-cancel') await sendCancel(session, item.commandId, item.after)
      await redeliver(session, toSend)
    } finally {
      for (const item of toSend) session.inHand.delete(keyOf(item.commandId, item.after.attempt))
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
      const key = keyOf(item.commandId, item.after.attempt)
      const message = commandMessage({ ...parts, commandId: item.commandId }, item.after, item.now)
      await forwardCommand(session, item, item.after, message)
      // Written now or not, the first hand-over may have arrived: the client is asked all the same.
      await tellCancel(session, key)
    }
  }

  /** It is out of hand: a cancel that came while it was being written goes after it. */
  async function tellCancel(session: Session, key: string): Promise<void> {
    const message = session.inHand.get(key)
    session.inHand.delete(key)
    if (message && writable(session)) await session.outlet.forward(session, message, null)
  }

  async function sendCancel(session: Session | undefined, commandId: string, state: ExecutionState): Promise<void> {
    const handover = lastHandedOver(state)
    if (!session || !writable(session) || !handover) return
    const key = keyOf(commandId, handover.attempt)
    const message: CancelMessage = {
      type: 'cancel',
      id: commandId,
      attempt: handover.attempt,
      ...(handover.journalId !== null ? { journalId: handover.journalId } : {}),
      ...(state.cancelReason !== null ? { reason: state.cancelReason } : {}),
    }
    // Claimed and not written yet: then it never is (rule 8). If it is just being written, the cancel follows it.
    if (session.inHand.has(key)) session.inHand.set(key, message)
    else await session.outlet.forward(session, message, null)
  }

  return {
    wake,
    ready,
    openGroup,
    sendCancel,
    async acknowledged(session, handover) {
      await deps.ledger.apply(
        { commandId: handover.commandId, clientId: session.clientId },
        { type: 'puback', epoch: session.epoch, attempt: handover.attempt },
      )
      session.forwarded.delete(keyOf(handover.commandId, handover.attempt))
    },
    idle: async (session) => {
      await busy.get(session)?.done
    },
  }
}

function commandMessage(
  parts: Pick<Claimed, 'commandId' | 'action' | 'payload' | 'priority' | 'target' | 'createdAt'>,
  state: ExecutionState,
  now: number,
): CommandMessage {
  return {
    type: 'command',
    id: parts.commandId,
    attempt: state.attempt,
    action: parts.action,
    ...(parts.payload !== undefined ? { payload: parts.payload } : {}),
    priority: parts.priority,
    target: parts.target,
    createdAt: new Date(parts.createdAt).toISOString(),
    sentAt: new Date(now).toISOString(),
    expiresInSeconds: Math.max(0, (state.expiresAt - now) / 1000),
    timeoutSeconds: state.timeoutSeconds,
  }
}
