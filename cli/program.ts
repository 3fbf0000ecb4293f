import { Command } from 'commander'
import { addActions } from './actions.ts'
import { addAlerts } from './alerts.ts'
import { addApiOptions, within } from './api-command.ts'
import { addAudit } from './audit.ts'
import { addClients } from './clients.ts'
import { addCommands } from './commands.ts'
import { addCompletion } from './completion.ts'
import { addEnrolments } from './enrolments.ts'
import { addPrincipals } from './principals.ts'
import { addSend } from './send.ts'
import { addSimulate } from './simulate.ts'
import { addTokens } from './tokens.ts'
import { addWatch } from './watch.ts'
import { addZones } from './zones.ts'

const EXIT_CODES = `
Exit codes:
  0    done
  1    it did not succeed: not every execution completed, or a check failed
  2    wrong usage
  3    the server refused (its code and detail are on stderr)
  4    the server is not reachable
  130  interrupted; what runs until it is stopped ends with 0 at the first Ctrl-C`

/** The command line: one subcommand, one file. Data on stdout, progress and faults on stderr. */
export function createProgram(): Command {
  const program = new Command('signalbox')
    .description('Commands to fleets of devices, and the truth about what became of them.')
    .addHelpText('after', EXIT_CODES)
    .showHelpAfterError('(see --help)')
    .exitOverride()
  addServerCommands(program)
  addSend(program)
  addWatch(program)
  addCommands(program)
  addClients(program)
  addEnrolments(program)
  addZones(program)
  addPrincipals(program)
  addTokens(program)
  addAudit(program)
  addActions(program)
  addAlerts(program)
  addDeviceCommands(program)
  addCompletion(program)
  return program
}

// What needs the server's or the agent's code is loaded when it is asked for: the other commands start faster.

function addServerCommands(program: Command): void {
  program
    .command('serve')
    .description('run the server; settings come from the environment')
    .option('--workers <n>', 'so many processes that share the ports, one for each core', within(1, 256))
    .action(async (options) => (await import('./serve.ts')).serve(options))
  program
    .command('migrate')
    .description('bring the schema of the database up to date, and end')
    .option('--json', 'one JSON document on stdout and nothing else')
    .action(async (options) => (await import('./migrate.ts')).migrate(options))
  addApiOptions(
    program
      .command('doctor')
      .description('whether a server can run here: settings, ports, database; 1 if something is broken'),
  ).action(async (options) => (await import('./doctor.ts')).doctor(options))
  program
    .command('demo')
    .description(
      'a server, or several, eight devices, commands of every kind, a network failure, and a check of what became of all',
    )
    .option('--keep', 'leave everything running until Ctrl-C')
    .option('--nodes <n>', 'so many servers with one database; needs redis-server', within(1, 8))
    .option('--reset', 'first remove what earlier runs left in DATA_DIR/demo')
    .action(async (options) => (await import('./demo.ts')).demo(options))
}

function addDeviceCommands(program: Command): void {
  program
    .command('agent')
    .description('run this machine as a client')
    .option('--id <clientId>', 'its client id')
    .option('--key <clientKey>', 'its client key (default: SIGNALBOX_CLIENT_KEY)')
    .option(
      '--enrol <link>',
      'obtain id and key with a link of `enrolments create`, once (default: SIGNALBOX_ENROL, which no process list shows)',
    )
    .option(
      '--credentials <file>',
      "the id and key that it enrolled for, kept across restarts (default: credentials.json in the journal's folder)",
    )
    .option(
      '--url <url>',
      'the server: mqtt://, mqtts://, ws:// or wss:// (default: as it was enrolled, else mqtt://127.0.0.1:1883)',
    )
    .option('--journal <file>', 'what it did, kept across restarts (default: .data/agents/<clientId>.sqlite)')
    .option('--allow <actions>', 'of status, message, screenshot, shutdown: what it may be told', 'status,message')
    .option('--root <topicRoot>', 'prefix of every topic', 'signalbox/v1')
    .action(async (options) => (await import('./agent.ts')).runAgent(options))
  addSimulate(program)
}
