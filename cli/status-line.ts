import { say } from './output.ts'
import { mayAnimate } from './settings.ts'

const ERASE_LINE = '\r\x1b[2K'

/** The present state on stderr: redrawn in place on a terminal, a new line whenever it changes elsewhere. */
export interface StatusLine {
  readonly animated: boolean
  show(text: string): void
  /** Leaves the last state on the screen. */
  end(): void
}

export function statusLine(): StatusLine {
  const animated = mayAnimate()
  let last: string | undefined
  return {
    animated,
    show(text) {
      if (animated) process.stderr.write(ERASE_LINE + text.slice(0, (process.stderr.columns || 80) - 1))
      else if (text !== last) say(text)
      last = text
    },
    end() {
      if (animated && last !== undefined) process.stderr.write('\n')
    },
  }
}
