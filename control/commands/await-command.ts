import type { Db } from '../../db/connect.ts'
import type { Command } from '../../schemas/commands.ts'
import { isSettled } from '../../schemas/executions.ts'
import type { Ledger } from '../executions/ledger.ts'
import { readCommand } from './read-commands.ts'

/** Tells those who wait for a command when one of its executions settles. */
export interface Watch {
  /** From here on nothing is missed. */
  begin(commandId: string): Waiting
  /** It may have settled on another node; without an id, any may have. */
  look(commandId?: string): void
}

export interface Waiting extends Disposable {
  /** Resolves when something was told since it last did, or when one of its executions may have settled unheard. */
  told(): Promise<void>
  tell(): void
}

export function createWatch(ledger: Ledger): Watch {
  const waiting = new Map<string, Set<Waiting>>()
  const look = (commandId?: string): void => {
    const told = commandId === undefined ? [...waiting.values()] : [waiting.get(commandId) ?? []]
    for (const those of told) for (const one of those) one.tell()
  }
  ledger.onChange(({ commandId }, before, after) => {
    if (isSettled(after.status) && !isSettled(before.status)) look(commandId)
  })
  ledger.onReturn(() => look())
  return {
    look,
    begin(commandId) {
      let news = Promise.withResolvers<void>()
      const one: Waiting = {
        async told() {
          await news.promise
          news = Promise.withResolvers()
        },
        tell: () => news.resolve(),
        [Symbol.dispose]() {
          if (those.delete(one) && those.size === 0) waiting.delete(commandId)
        },
      }
      const those = waiting.get(commandId) ?? new Set()
      waiting.set(commandId, those.add(one))
      return one
    },
  }
}

/**
 * The command once every execution is settled, or as it is when the time is up or the caller is gone. Whoever has just created it
 * gives what it was then, and what has waited for it since before.
 */
export async function awaitCommand(
  deps: { db: Db; watch: Watch },
  id: string,
  seconds: number,
  gone: AbortSignal,
  created?: { command: Command; waiting: Waiting },
): Promise<Command> {
  using own = created ? undefined : deps.watch.begin(id)
  const { tell, told } = (created?.waiting ?? own) as Waiting
  const deadline = AbortSignal.any([gone, AbortSignal.timeout(seconds * 1000)])
  deadline.addEventListener('abort', tell)
  try {
    let command = created?.command ?? (await readCommand(deps.db, id))
    while (command.completedAt === undefined && !deadline.aborted) {
      await told()
      command = await readCommand(deps.db, id)
    }
    return command
  } finally {
    deadline.removeEventListener('abort', tell)
  }
}
