import type { Logger } from 'pino'
import type { ExecutionKey, ExecutionState } from '../../db/executions.ts'
import type { CancelMessage, CommandMessage } from '../../schemas/messages.ts'
import type { Session } from '../sessions/sessions.ts'
import type { Claimed, Ledger } from './ledger.ts'
import type { Input } from './lifecycle.ts'
import { lastHandedOver } from './states.ts'

/** Writes to a session's client what the ledger has decided, and knows what is in hand: claimed, and not known to be written yet. */
export interface HandOver {
  /** It is taken in hand, if it is not yet. */
  take(session: Session, commandId: string, attempt: number): void
  /** Writes a claim that is in hand; an error leaves it as it is in the ledger: out of hand, it is found by the next claim. */
  forwardOrRelease(session: Session, item: Claimed): Promise<void>
  /** Answers whether the command was written. */
  forward(session: Session, key: ExecutionKey, state: ExecutionState, message: CommandMessage): Promise<boolean>
  /**
   * Out of hand. A first claim that was not written is released (of a redelivery nothing is). A cancel that came meanwhile is told
   * after all, unless the release has settled it: the client may have the command, or its outcome is unknown.
   */
  putDown(session: Session, key: ExecutionKey, attempt: number, written: boolean): Promise<void>
  /** Tells the client that the command is withdrawn, or asks about an unknown outcome, if that can be now. */
  writeCancel(session: Session, commandId: string, state: ExecutionState): Promise<void>
}

export interface HandOverDeps {
  log: Logger
  ledger: Ledger
  /** Named points of the way, for the tests that end the process there. */
  passed?(point: 'claim-committed' | 'forwarded'): void
}

/** Of an attempt, among those of one session. */
export const attemptKey = (commandId: string, attempt: number): string => `${commandId} ${attempt}`

/** Whether the session's client can be written to. */
export const writable = (session: Session): boolean => session.subscription === 'granted' && !session.ending

export function createHandOver(deps: HandOverDeps): HandOver {
  function take(session: Session, commandId: string, attempt: number): void {
    const key = attemptKey(commandId, attempt)
    if (!session.inHand.has(key)) session.inHand.set(key, { withdrawn: null })
  }

  async function forwardOrRelease(session: Session, item: Claimed): Promise<void> {
    try {
      const forwarded = await forward(session, item, item.state, commandMessage(item, item.state, item.now))
      await putDown(session, item, item.state.attempt, forwarded)
    } catch (error) {
      session.uncertain = true
      deps.log.error({ err: error, clientId: session.clientId, commandId: item.commandId }, 'forward failed')
    } finally {
      session.inHand.delete(attemptKey(item.commandId, item.state.attempt))
    }
  }

  async function putDown(session: Session, key: ExecutionKey, attempt: number, written: boolean): Promise<void> {
    const release: Input = { type: 'release', epoch: session.epoch, attempt }
    const applied = written ? undefined : await deps.ledger.apply(key, release)
    const name = attemptKey(key.commandId, attempt)
    const withdrawn = session.inHand.get(name)?.withdrawn
    session.inHand.delete(name)
    const released = applied !== undefined && applied.after !== applied.before
    const told = released ? applied.effect && applied.after : withdrawn
    if (told) await writeCancel(session, key.commandId, told)
  }

  async function forward(
    session: Session,
    key: ExecutionKey,
    state: ExecutionState,
    message: CommandMessage,
  ): Promise<boolean> {
    const forwardedKey = attemptKey(key.commandId, state.attempt)
    if (!writable(session) || session.inHand.get(forwardedKey)?.withdrawn) return false
    session.forwarded.add(forwardedKey)
    const forwarded = await session.outlet.forward(session, message, {
      commandId: key.commandId,
      attempt: state.attempt,
    })
    if (!forwarded) session.forwarded.delete(forwardedKey)
    else deps.passed?.('forwarded')
    return forwarded
  }

  async function writeCancel(session: Session, commandId: string, state: ExecutionState): Promise<void> {
    const handover = lastHandedOver(state)
    if (!writable(session) || !handover) return
    // Only the memory that was handed it can tell what became of it.
    const remembers = handover.journalId !== null && handover.journalId === session.journalId
    if (state.status === 'outcome_unknown' && !remembers) return
    const held = session.inHand.get(attemptKey(commandId, handover.attempt))
    // Claimed and perhaps not written yet: then it never is (rule 8), and `putDown` knows whether the client needs a word.
    if (held) {
      held.withdrawn = state
      return
    }
    const message: CancelMessage = {
      type: 'cancel',
      id: commandId,
      attempt: handover.attempt,
      ...(handover.journalId !== null ? { journalId: handover.journalId } : {}),
      ...(state.cancelReason !== null ? { reason: state.cancelReason } : {}),
    }
    await session.outlet.forward(session, message, null)
  }

  return { take, forwardOrRelease, forward, putDown, writeCancel }
}

export function commandMessage(
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
