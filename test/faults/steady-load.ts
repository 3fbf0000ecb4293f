import { type Accepted, type LoadOptions, startLoad } from './load.ts'
import type { Stand } from './stand.ts'

const COMMANDS_AT_A_TIME = 40

/** A load that goes on until it is told to end. */
export interface SteadyLoad {
  accepted: Accepted[]
  cancelled: number
  end(): Promise<void>
}

export function startSteadyLoad(stand: Stand, options: Omit<LoadOptions, 'commands'>): SteadyLoad {
  const steady: SteadyLoad = { accepted: [], cancelled: 0, end: () => Promise.resolve() }
  let ending = false
  const run = async (): Promise<void> => {
    for (let part = 0; !ending; part++) {
      const load = startLoad(stand, {
        ...options,
        commands: COMMANDS_AT_A_TIME,
        prefix: `${options.prefix ?? 'load'}-${part}`,
      })
      await load.done
      steady.accepted.push(...load.accepted)
      steady.cancelled += load.cancelled
    }
  }
  const running = run()
  // It may fail while somebody else is waited for; `end` says so.
  running.catch(() => undefined)
  steady.end = () => {
    ending = true
    return running
  }
  return steady
}
