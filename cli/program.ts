import { Command } from 'commander'
import { serve } from './serve.ts'

/** The command line: one subcommand, one file. */
export function createProgram(): Command {
  const program = new Command('signalbox').description(
    'Commands to fleets of devices, and the truth about what became of them.',
  )
  program.command('serve').description('run the server').action(serve)
  return program
}
