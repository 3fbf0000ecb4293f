#!/usr/bin/env node
import { EXIT, reportFailure } from './failures.ts'
import { createProgram } from './program.ts'

// `signalbox commands list | head` closes the pipe: that is no fault.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.done)
  throw error
})

try {
  await createProgram().parseAsync()
} catch (error) {
  process.exitCode = reportFailure(error)
}
