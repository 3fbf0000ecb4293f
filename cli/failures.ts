import { CommanderError } from 'commander'
import type { z } from 'zod'
import type { Problem } from '../schemas/errors.ts'

/** What the process ends with; `signalbox --help` and docs/cli.md explain them. */
export const EXIT = { done: 0, failed: 1, usage: 2, refused: 3, unreachable: 4, interrupted: 130 } as const

/** It was done as asked, but the answer is no: an execution did not complete, a row was not imported. */
export class NotDoneError extends Error {}

export class UsageError extends Error {}

/** The server's no, as problem details. */
export class RefusedError extends Error {
  readonly problem: z.infer<typeof Problem>

  constructor(problem: z.infer<typeof Problem>) {
    super(`${problem.code}: ${problem.detail}`)
    this.problem = problem
  }
}

export class UnreachableError extends Error {
  /** Whether the request may have got there all the same. */
  readonly maySent: boolean

  constructor(message: string, options: { maySent: boolean; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.maySent = options.maySent
  }
}

/** An error's own words, or those of what it gathers: connecting to a name with several addresses has no message. */
export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && !error.message) return error.errors.map(reasonOf).join('; ')
  return error instanceof Error ? error.message.trim() : String(error)
}

/** Says on stderr what went wrong and returns the exit code for it. */
export function reportFailure(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage
  const message = reasonOf(error)
  if (message) console.error(`signalbox: ${message}`)
  if (error instanceof UsageError) return EXIT.usage
  if (error instanceof UnreachableError) return EXIT.unreachable
  if (error instanceof RefusedError) {
    const { errors = [], added = [], removed = [] } = error.problem
    for (const fault of errors.length > 1 ? errors : []) console.error(`  ${fault.path}: ${fault.message}`)
    for (const clientId of added) console.error(`  added: ${clientId}`)
    for (const clientId of removed) console.error(`  removed: ${clientId}`)
    return EXIT.refused
  }
  return EXIT.failed
}
