import { AppError } from '../schemas/errors.ts'

/** CONNACK return codes [MQTT-3.2.2.3]. */
type ReturnCode = 1 | 2 | 3 | 4 | 5

/** A connection that is refused, with the CONNACK code and the cause for the log. */
export class Refusal extends Error {
  readonly returnCode: ReturnCode

  constructor(returnCode: ReturnCode, message: string) {
    // It is an answer, and no fault of ours: where it was made is nobody's question, and thousands a second may be given.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    super(message)
    Error.stackTraceLimit = stackTraceLimit
    this.returnCode = returnCode
  }
}

/** What the CONNACK says of an error: the database's absence is 3, never 4 or 5 (rule 3). */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error
  if (error instanceof AppError && error.code === 'CLIENT_DISABLED') return new Refusal(5, error.message)
  return new Refusal(3, error instanceof Error ? error.message : String(error))
}
