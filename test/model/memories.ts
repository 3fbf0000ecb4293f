import type * as rules from '../../agent/attempts.ts'
import { type Attempts, needsReport, type Outcome, type OutcomeStatus } from '../../agent/attempts.ts'

/** The agent's rules, or those with one taken out. */
export type AgentRules = Pick<
  typeof rules,
  'receive' | 'cancel' | 'mayStart' | 'start' | 'finish' | 'giveUp' | 'restart' | 'markReported'
>

/** What a client remembers of the command: equal memories are one object. */
export interface Memory {
  readonly id: number
  readonly attempts: Attempts
}

export interface Memories {
  readonly nothing: Memory
  /** `step` names the work and all that it depends on: it is done once per memory. */
  after(memory: Memory, step: string, work: (attempts: Attempts) => Attempts): Memory
}

interface Known extends Memory {
  readonly steps: Map<string, Memory>
}

export function createMemories(): Memories {
  const known = new Map<string, Known>()

  function memoryOf(attempts: Attempts): Memory {
    const plain = attempts.map(({ attempt, state, reported, error }) =>
      Object.freeze({
        attempt,
        state,
        reported,
        ...(error ? { error: Object.freeze({ code: error.code, message: '' }) } : {}),
      }),
    )
    const text = JSON.stringify(plain)
    const memory = known.get(text) ?? { id: known.size, attempts: Object.freeze(plain), steps: new Map() }
    known.set(text, memory)
    return memory
  }

  return {
    nothing: memoryOf([]),
    after(memory, step, work) {
      const { steps } = memory as Known
      const before = steps.get(step)
      if (before) return before
      const made = memoryOf(work(memory.attempts))
      steps.set(step, made)
      return made
    },
  }
}

export const stateOf = ({ attempts }: Memory, attempt: number): rules.AttemptState | undefined =>
  attempts.find((entry) => entry.attempt === attempt)?.state

/** The outcome of an attempt that the server has not acknowledged, and the code of its error. */
export function toReport({ attempts }: Memory, attempt: number): { status: OutcomeStatus; code?: string } | undefined {
  const entry = attempts.find((one) => one.attempt === attempt)
  if (!entry || !needsReport(entry)) return undefined
  return { status: entry.state as OutcomeStatus, ...(entry.error ? { code: entry.error.code } : {}) }
}

export const outcome = (status: OutcomeStatus): Outcome => ({ status })
