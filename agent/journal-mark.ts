import { closeSync, existsSync, fdatasyncSync, openSync, readFileSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'

/** How far a journal had come when something was done, or told, that it must not forget. */
export interface Mark {
  journalId: string
  steps: number
}

/** Far enough apart that one torn write does not take both. */
const SLOTS = [0, 4096]
const SLOT_BYTES = 80

/**
 * A journal's mark, in a file beside it. SQLite drops a damaged end of its WAL without a word, whole transactions that were on
 * disk: the journal is then an older one and cannot know it. The mark can: it is written in place, the two slots in turn.
 */
export class JournalMark {
  /** Whether there was a file; what is in it may be damaged. */
  readonly found: boolean
  readonly last: Mark | undefined
  readonly #fd: number
  #slot: number

  constructor(file: string) {
    this.found = existsSync(file)
    const slots = this.found ? readSlots(file) : []
    this.last = slots.reduce((newest, slot) => (slot && slot.steps > (newest?.steps ?? -1) ? slot : newest), undefined)
    this.#slot = slots.indexOf(this.last)
    this.#fd = openSync(file, this.found ? 'r+' : 'w+')
  }

  /** The mark of a journal that begins, or begins anew: nothing of another one is left. On disk when it returns. */
  begin(mark: Mark): void {
    for (const _ of SLOTS) this.write(mark)
  }

  /** On disk when it returns. */
  write({ journalId, steps }: Mark): void {
    const text = `${steps} ${journalId}`
    const line = `${text} ${sumOf(text)}`.padEnd(SLOT_BYTES - 1)
    this.#slot = (this.#slot + 1) % SLOTS.length
    writeSync(this.#fd, `${line}\n`, SLOTS[this.#slot])
    fdatasyncSync(this.#fd)
  }

  close(): void {
    closeSync(this.#fd)
  }
}

function readSlots(file: string): (Mark | undefined)[] {
  const bytes = readFileSync(file)
  return SLOTS.map((at) => {
    const [steps = '', journalId = '', sum] = bytes
      .toString('latin1', at, at + SLOT_BYTES)
      .trim()
      .split(' ')
    return sum === sumOf(`${steps} ${journalId}`) ? { journalId, steps: Number(steps) } : undefined
  })
}

const sumOf = (text: string): string => crc32(text).toString(16).padStart(8, '0')
