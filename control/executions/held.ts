import type { ExecutionKey, StoredExecution } from '../../db/executions.ts'
import { inFlight } from './states.ts'

/**
 * The executions in flight as this node stored them last, so that what comes next about one need not read it. Any of them may have
 * been changed elsewhere meanwhile: what is made of one counts only if it is stored, which its version decides.
 */
export interface Held {
  get(key: ExecutionKey): StoredExecution | undefined
  /** It was stored like this. */
  keep(execution: StoredExecution): void
  forget(key: ExecutionKey): void
}

export const keyOf = (key: ExecutionKey): string => `${key.commandId} ${key.clientId}`

/** Of the oldest it forgets what is above this: ten thousand devices that have two commands each. */
const MOST = 20_000

export function createHeld(): Held {
  const held = new Map<string, StoredExecution>()
  return {
    get: (key) => held.get(keyOf(key)),
    keep({ commandId, clientId, version, action, createdAt, state }) {
      const key = keyOf({ commandId, clientId })
      held.delete(key)
      // Progress may be of any size.
      if (!inFlight(state.status) || state.progress !== null) return
      held.set(key, { commandId, clientId, version, action, createdAt, state })
      if (held.size > MOST) held.delete(held.keys().next().value as string)
    },
    forget: (key) => void held.delete(keyOf(key)),
  }
}
