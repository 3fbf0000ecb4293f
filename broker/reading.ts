import { type AedesClient, readOn } from './aedes-internals.ts'

/** The login is not through, messages wait for their commit, too many came at once, or others come first. */
const REASONS = { login: 1, held: 2, rate: 4, turn: 8 } as const

type Pause = keyof typeof REASONS

/**
 * Whether a connection is read from: not while there is a reason against it. The sender's own buffers hold what comes meanwhile.
 * A class, as is whatever each connection has: closures would cost every one of them some hundred bytes.
 */
export class Reading {
  readonly #client: AedesClient
  #reasons = 0

  constructor(client: AedesClient) {
    this.#client = client
  }

  get paused(): boolean {
    return this.#reasons > 0
  }

  pause(why: Pause): void {
    this.#reasons |= REASONS[why]
    this.#client.pause()
  }

  /** This reason is gone, if it was there; it is read on if there is no other. */
  resume(why: Pause): void {
    if ((this.#reasons & REASONS[why]) === 0) return
    this.#reasons &= ~REASONS[why]
    this.goOn()
  }

  /** Reads on if nothing speaks against it. */
  goOn(): void {
    if (this.#reasons === 0) readOn(this.#client)
  }
}
