import { AppError } from '../schemas/errors.ts'

/** What everybody is told whose work PostgreSQL did not confirm. */
export const unavailable = (): AppError =>
  new AppError(
    'UNAVAILABLE',
    'The database does not answer; nothing is confirmed. Repeat with the same Idempotency-Key.',
  )
