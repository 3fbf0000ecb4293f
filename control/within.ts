import { unavailable } from './unavailable.ts'

/** For callers who cannot wait as long as the work may: UNAVAILABLE when the time is up. The work itself goes on. */
export async function within<T>(seconds: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const timeUp = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(unavailable()), seconds * 1000)
  })
  try {
    return await Promise.race([work, timeUp])
  } finally {
    clearTimeout(timer)
  }
}
