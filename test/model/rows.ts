import type { Context, Effect, Transition } from '../../control/executions/endings.ts'
import type { Input } from '../../control/executions/lifecycle.ts'
import { newExecution } from '../../control/executions/states.ts'
import type { ExecutionState } from '../../db/executions.ts'
import type { Delivery } from '../../schemas/executions.ts'

/** A rule book of an execution: the project's `transition`, or one with a rule taken out. */
export type Transit = (state: ExecutionState, input: Input, context: Context) => Transition

/** One state of the execution without its times: every world that has it refers to the same object. */
export interface Row {
  readonly id: number
  readonly state: ExecutionState
}

/** What `transition` makes of a row, as the ledger sees it. */
export interface Move {
  readonly row: Row
  /** The time to live is over: a retry lets it start anew. */
  readonly expired: boolean
  readonly effect: Effect | undefined
  /** There is something to store: another state, or events. */
  readonly stored: boolean
  readonly events: number
}

export interface Rows {
  size(): number
  first(delivery: Delivery, maxRetries: number): Row
  apply(row: Row, expired: boolean, input: Input): Move
}

/**
 * Time is not counted: a deadline has passed when its input is given, and the expiry when the world says so. What is left of a
 * time in a state is whether there is one. Equal states become one object, so that a finite number of them is explored, and each
 * is given to `transition` once per input.
 */
const EXPIRES_AT = 10
const PASSED = 0
const now = (expired: boolean): number => (expired ? EXPIRES_AT : EXPIRES_AT - 1)

interface Known extends Row {
  readonly moves: Map<string, Move>
}

export function createRows(transit: Transit, backoffSeconds: number): Rows {
  const known = new Map<string, Known>()
  const backoff = { baseSeconds: backoffSeconds, maxSeconds: backoffSeconds }

  function rowOf(state: ExecutionState): Row {
    const timeless = withoutTimes(state)
    const text = JSON.stringify(timeless)
    const row = known.get(text) ?? { id: known.size, state: frozen(timeless), moves: new Map() }
    known.set(text, row)
    return row
  }

  function move(row: Row, expired: boolean, input: Input): Move {
    const context: Context = { now: now(expired), backoff, random: () => 0.5 }
    const { state, events, effect } = transit(row.state, input, context)
    const stored = state !== row.state || events.length > 0
    // A state that lives on keeps its own expiry, which the world knows better.
    const anew = state.expiresAt !== EXPIRES_AT
    return {
      row: state === row.state ? row : rowOf(state),
      expired: anew ? now(expired) >= state.expiresAt : expired,
      effect,
      stored,
      events: events.length,
    }
  }

  return {
    size: () => known.size,
    first: (delivery, maxRetries) =>
      rowOf(
        newExecution({
          delivery,
          maxRetries,
          startTimeoutSeconds: 1,
          timeoutSeconds: 1,
          expiresAt: EXPIRES_AT,
          notBefore: null,
        }),
      ),
    apply(row, expired, input) {
      const { moves } = row as Known
      const key = keyOf(input) + expired
      const before = moves.get(key)
      if (before) return before
      const made = move(row, expired, input)
      moves.set(key, made)
      return made
    },
  }
}

const passed = (time: number | null): number | null => (time === null ? null : PASSED)

function withoutTimes(state: ExecutionState): ExecutionState {
  return {
    ...state,
    cancelRequestedAt: passed(state.cancelRequestedAt),
    notBefore: passed(state.notBefore),
    deadline: passed(state.deadline),
    expiresAt: EXPIRES_AT,
    error: state.error && { code: state.error.code, message: '' },
    queuedAt: null,
    deliveredAt: null,
    startedAt: null,
    completedAt: null,
  }
}

/** `transition` is pure: a state that it wrote to would throw here. */
function frozen<T>(value: T): T {
  if (typeof value === 'object' && value !== null) for (const part of Object.values(value)) frozen(part)
  return Object.freeze(value)
}

/** All that an input says: its type has always the same fields, in the same order. */
function keyOf(value: object): string {
  let key = ''
  for (const part of Object.values(value)) key += typeof part === 'object' && part !== null ? keyOf(part) : `${part} `
  return key
}
