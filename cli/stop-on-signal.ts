import { EXIT } from './failures.ts'

/**
 * At SIGINT or SIGTERM the process stops and ends. A second signal ends it at once, after `kill`, which is for what would outlive it.
 */
export function stopOnSignal(stop: () => Promise<void>, kill: () => void = () => undefined): void {
  let stopping = false
  const hear = (): void => {
    if (stopping) {
      kill()
      process.exit(EXIT.interrupted)
    }
    stopping = true
    exitAfter(stop())
  }
  process.on('SIGINT', hear)
  process.on('SIGTERM', hear)
}

/** Ends the process once it has stopped. Exit code 1: it did not stop as it should, and says why. */
export function exitAfter(stopped: Promise<void>): void {
  stopped.then(
    () => process.exit(EXIT.done),
    (error) => {
      console.error(error)
      process.exit(EXIT.failed)
    },
  )
}
