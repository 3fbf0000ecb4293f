import { AppError } from '../schemas/errors.ts'

/** For callers who cannot wait as long as the work may: UNAVAILABLE when the time is up. The work itself goes on. */
export async function within<T>(seconds: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const timeUp = new Promise<never>((_, reject) => {
    const error = new AppError('UNAVAILABLE', 'The database does not answer; nothing is confirmed. Repeat the request.')
    timer = setTimeout(reject, seconds * 1000, error)
  })
  try {
    return await Promise.race([work, timeUp])
  } finally {
    clearTimeout(timer)
  }
}
