import { Command } from 'commander'
import { runAgent } from './agent.ts'
import { demo } from './demo.ts'
import { serve } from './serve.ts'

/** The command line: one subcommand, one file. Data on stdout, progress and faults on stderr. */
export function createProgram(): Command {
  const program = new Command('signalbox').description(
    'Commands to fleets of devices, and the truth about what became of them.',
  )
  program.command('serve').description('run the server; settings come from the environment').action(serve)
  program
    .command('demo')
    .description('a server, a device in its own process, one command, and a check of what both say about it')
    .action(demo)
  program
    .command('agent')
    .description('run this machine as a client')
    .requiredOption('--id <clientId>', 'its client id')
    .option('--key <clientKey>', 'its client key (default: SIGNALBOX_CLIENT_KEY)')
    .option('--url <url>', 'the server: mqtt://, mqtts://, ws:// or wss://', 'mqtt://127.0.0.1:1883')
    .option('--journal <file>', 'what it did, kept across restarts (default: .data/agents/<clientId>.sqlite)')
    .option('--allow <actions>', 'of status, message, screenshot, shutdown: what it may be told', 'status,message')
    .option('--root <topicRoot>', 'prefix of every topic', 'signalbox/v1')
    .action(runAgent)
  return program
}
