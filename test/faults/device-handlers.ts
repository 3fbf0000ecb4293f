import { setTimeout as sleep } from 'node:timers/promises'
import type { Handler } from '../../agent/handlers.ts'
import type { EffectFile, Work } from './work.ts'

/** What a device of a fault run does: whenever it really does something, there is one line more in the effect file. */
export function handlersOf(clientId: string, effects: EffectFile): Record<string, Handler> {
  const act: Handler = async ({ id, attempt, payload }) => {
    const { thinkMs, fails, failures = 0 } = payload as unknown as Work
    effects.append({ clientId, id, attempt })
    // It has happened: a cancel comes too late, and the outcome says so.
    if (thinkMs > 0) await sleep(thinkMs)
    if (fails || attempt <= failures) throw Object.assign(new Error('out of paper'), { code: 'OUT_OF_PAPER' })
    return { done: true }
  }
  return { print: act, index: act }
}
