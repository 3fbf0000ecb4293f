import type { Target } from '../../schemas/commands.ts'
import type { Session } from '../sessions/sessions.ts'
import type { Claimed } from './ledger.ts'

/** The claims of a group command that its one publish will carry. */
export interface Group {
  readonly target: Target
  /** Filled by the sessions' claims while the group is open. */
  readonly claims: Map<Session, Claimed>
  /** Until its publish begins. */
  open: boolean
  /** Resolves when its publish is over, and what was not written is released. */
  readonly done: Promise<void>
}

/** Whether the session listens to the group's topic. */
export const listens = (group: Group, session: Session): boolean =>
  group.target.kind === 'zone' ? session.zones.has(group.target.zone) : session.broadcast

/** Whether a claim belongs into the group's publish. A later attempt goes to the own topic: the others must not see it. */
export const carries = (group: Group, session: Session, item: Claimed): boolean =>
  group.open && item.state.attempt === 1 && listens(group, session)
