import { z } from 'zod'

/** Stable codes and their HTTP status (contract, 5), with those that tell of HTTP itself. */
export const ERROR_STATUS = {
  INTERNAL: 500,
  INVALID_INPUT: 400,
  UNAUTHORIZED: 401,
  FORBIDDEN: 403,
  ACTION_NOT_ALLOWED: 403,
  CLIENT_DISABLED: 403,
  NOT_FOUND: 404,
  NO_TARGETS: 409,
  TARGETS_CHANGED: 409,
  CONFLICT: 409,
  REQUEST_TIMEOUT: 408,
  PAYLOAD_TOO_LARGE: 413,
  UNSUPPORTED_MEDIA_TYPE: 415,
  IDEMPOTENCY_MISMATCH: 422,
  RATE_LIMIT: 429,
  DAILY_LIMIT: 429,
  QUEUE_FULL: 429,
  HEADERS_TOO_LARGE: 431,
  UNAVAILABLE: 503,
} as const

export type ErrorCode = keyof typeof ERROR_STATUS

/** One fault of the input: where (`payload.copies`) and what. */
export interface InputFault {
  path: string
  message: string
}

/** The one error that use cases throw. Each edge maps the code: to an HTTP status, or to an answer on `replies`. */
export class AppError extends Error {
  readonly code: ErrorCode
  readonly faults: InputFault[] | undefined
  /** Further members of the problem, for instance how targets differ. */
  readonly extensions: Record<string, unknown> | undefined

  constructor(code: ErrorCode, message: string, faults?: InputFault[], extensions?: Record<string, unknown>) {
    super(message)
    this.name = 'AppError'
    this.code = code
    this.faults = faults
    this.extensions = extensions
  }
}

/** How a limit stands. `name`: the policy, `resetSeconds`: until it is whole again. */
export interface LimitState {
  name: string
  quota: number
  /** Undefined where the limit is no rate. */
  windowSeconds?: number
  remaining: number
  resetSeconds: number
}

/** A limit that is reached, with everything that the caller is told of it. */
export class LimitError extends AppError {
  readonly limits: LimitState[]
  readonly retryAfterSeconds: number

  constructor(code: ErrorCode, message: string, limits: LimitState[], retryAfterSeconds: number) {
    super(code, message)
    this.limits = limits
    this.retryAfterSeconds = retryAfterSeconds
  }
}

/** Turns a zod failure into INVALID_INPUT; `at` names what was parsed (body, query). */
export function invalidInput(error: z.ZodError, at: string): AppError {
  const faults = error.issues.map((issue) => ({ path: issue.path.join('.') || at, message: issue.message }))
  return new AppError('INVALID_INPUT', `The ${at} is not valid: ${faults[0]?.path}: ${faults[0]?.message}`, faults)
}

/** RFC 9457 problem details, with the stable `code` and, for invalid input, every fault at once. */
export const Problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  code: z.enum(Object.keys(ERROR_STATUS) as [ErrorCode, ...ErrorCode[]]),
  detail: z.string(),
  instance: z.string().optional(),
  errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
  added: z.array(z.string()).optional(),
  removed: z.array(z.string()).optional(),
  /** How many targets no grant allows. */
  uncovered: z.int().optional(),
})
