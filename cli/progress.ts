import type { Command } from '../schemas/commands.ts'
import { say } from './output.ts'
import { mayAnimate } from './settings.ts'
import { countsText, settledOf } from './show-command.ts'

/** How far a command is, on stderr: a bar that is redrawn on a terminal, a line per change elsewhere. */
export interface CommandProgress {
  /** How often it is worth asking again, in ms. */
  readonly intervalMs: number
  show(command: Command): void
  /** Leaves the last state on the screen. */
  end(): void
}

export const commandProgress = (label = ''): CommandProgress => (mayAnimate() ? bar(label) : lines(label))

const BAR_WIDTH = 24
const ERASE_LINE = '\r\x1b[2K'

function bar(label: string): CommandProgress {
  let drawn = false
  return {
    intervalMs: 200,
    show({ counts, total }) {
      const settled = settledOf(counts)
      const filled = total === 0 ? 0 : Math.floor((settled / total) * BAR_WIDTH)
      const text = `${label}[${'#'.repeat(filled)}${'-'.repeat(BAR_WIDTH - filled)}] ${settled}/${total}  ${countsText(counts)}`
      process.stderr.write(ERASE_LINE + text.slice(0, (process.stderr.columns || 80) - 1))
      drawn = true
    },
    end() {
      if (drawn) process.stderr.write('\n')
    },
  }
}

function lines(label: string): CommandProgress {
  let last = ''
  return {
    intervalMs: 1000,
    show({ counts, total }) {
      const text = `${label}${settledOf(counts)} of ${total} settled: ${countsText(counts)}`
      if (text !== last) say(text)
      last = text
    },
    end() {},
  }
}
