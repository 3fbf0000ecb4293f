import type { Command } from '../schemas/commands.ts'
import { countsText, settledOf } from './show-command.ts'
import { statusLine } from './status-line.ts'

/** How far a command is, on stderr: a bar on a terminal, a line per change elsewhere. */
export interface CommandProgress {
  /** How often it is worth asking again, in ms. */
  readonly intervalMs: number
  show(command: Command): void
  end(): void
}

const BAR_WIDTH = 24

export function commandProgress(indent = ''): CommandProgress {
  const line = statusLine()
  return {
    intervalMs: line.animated ? 200 : 1000,
    show({ counts, total }) {
      const settled = settledOf(counts)
      const text = line.animated ? `${bar(settled / total)} ${settled}/${total}  ` : `${settled} of ${total} settled: `
      line.show(indent + text + countsText(counts))
    },
    end: () => line.end(),
  }
}

function bar(share: number): string {
  const filled = Math.floor(share * BAR_WIDTH)
  return `[${'#'.repeat(filled)}${'-'.repeat(BAR_WIDTH - filled)}]`
}
