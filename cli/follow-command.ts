import type { Command } from '../schemas/commands.ts'
import { type Api, path, withQuery } from './api-client.ts'
import type { CommandProgress } from './progress.ts'
import { settledOf } from './show-command.ts'

export const isSettledCommand = (command: Command): boolean => settledOf(command.counts) >= command.total

/** Asks until every execution is settled or `seconds` are over; answers the state at that moment. */
export async function followCommand(
  api: Api,
  command: Command,
  options: { seconds: number; progress: CommandProgress },
): Promise<Command> {
  const { seconds, progress } = options
  const deadline = performance.now() + seconds * 1000
  let current = command
  progress.show(current)
  try {
    while (!isSettledCommand(current)) {
      const left = deadline - performance.now()
      if (left <= 0) break
      // The server answers at once when it is settled.
      const wait = Math.max(0.001, Math.min(progress.intervalMs, left) / 1000)
      current = await api<Command>('GET', withQuery(path`/commands/${command.id}`, { wait: wait.toFixed(3) }))
      progress.show(current)
    }
  } finally {
    progress.end()
  }
  return current
}
