import type { Command, CommandStatus } from '../../schemas/commands.ts'
import { isSettled, type Status } from '../../schemas/executions.ts'

/** The status of a command from those of its executions (contract, 4). */
export function commandStatus({ counts, total }: Pick<Command, 'counts' | 'total'>): CommandStatus {
  const present = (Object.keys(counts) as Status[]).filter((status) => (counts[status] ?? 0) > 0)
  if (total === 1 && present[0]) return present[0]
  if (present.every((status) => status === 'pending')) return 'pending'
  if (!present.every(isSettled)) return 'running'
  if (present.includes('outcome_unknown')) return 'outcome_unknown'
  return present.length === 1 ? (present[0] as Status) : 'partially_failed'
}
