import { isDatabaseDown } from '../db/connect.ts'
import { AppError } from '../schemas/errors.ts'
import { unavailable } from './unavailable.ts'

/** What a door may say of any error: ours as it is, a database that is down as UNAVAILABLE, everything else a bare INTERNAL. */
export function asAppError(error: unknown): AppError {
  if (error instanceof AppError) return error
  if (isDatabaseDown(error)) return unavailable()
  return new AppError('INTERNAL', 'Something went wrong on our side; the request id is in X-Request-Id.')
}
