import type { Db } from '../../db/connect.ts'
import type { Command } from '../../schemas/commands.ts'
import { isSettled } from '../../schemas/executions.ts'
import type { Ledger } from '../executions/ledger.ts'
import { readCommand } from './read-commands.ts'

/** Tells those who wait for a command when one of its executions settles. */
export interface Watch {
  /** Calls back at each settling, and when one may have been missed, until the returned function is called. */
  settled(commandId: string, callback: () => void): () => void
  /** It may have settled on another node; without an id, any may have. */
  look(commandId?: string): void
}

export function createWatch(ledger: Ledger): Watch {
  const waiting = new Map<string, Set<() => void>>()
  const look = (commandId?: string): void => {
    const waiters = commandId === undefined ? [...waiting.values()] : [waiting.get(commandId) ?? []]
    for (const callbacks of waiters) for (const callback of callbacks) callback()
  }
  ledger.onChange(({ commandId }, before, after) => {
    if (isSettled(after.status) && !isSettled(before.status)) look(commandId)
  })
  ledger.onReturn(() => look())
  return {
    look,
    settled(commandId, callback) {
      const callbacks = waiting.get(commandId) ?? new Set()
      waiting.set(commandId, callbacks.add(callback))
      return () => {
        callbacks.delete(callback)
        if (callbacks.size === 0) waiting.delete(commandId)
      }
    },
  }
}

/** The command once every execution is settled, or as it is when the time is up or the caller is gone. */
export async function awaitCommand(
  deps: { db: Db; watch: Watch },
  id: string,
  seconds: number,
  gone: AbortSignal,
): Promise<Command> {
  const deadline = AbortSignal.any([gone, AbortSignal.timeout(seconds * 1000)])
  let wake = (): void => undefined
  const unwatch = deps.watch.settled(id, () => wake())
  const onEnd = (): void => wake()
  deadline.addEventListener('abort', onEnd)
  try {
    for (;;) {
      const settling = new Promise<void>((resolve) => {
        wake = resolve
      })
      const command = await readCommand(deps.db, id)
      if (command.completedAt !== undefined || deadline.aborted) return command
      await settling
    }
  } finally {
    unwatch()
    deadline.removeEventListener('abort', onEnd)
  }
}
