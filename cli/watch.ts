import type { Command as CliCommand } from 'commander'
import type { Command } from '../schemas/commands.ts'
import type { Event } from '../schemas/events.ts'
import { path, withQuery } from './api-client.ts'
import { type ApiSession, listOption, onApi } from './api-command.ts'
import { readEventStream, type StreamEvent } from './event-stream.ts'
import { EXIT, NotDoneError, UsageError } from './failures.ts'
import { say } from './output.ts'
import { commandText, countsText, eventText, isCompleted } from './show-command.ts'

interface WatchOptions {
  types?: string[]
  zone?: string
  client?: string
}

export function addWatch(program: CliCommand): void {
  onApi<WatchOptions>(
    program
      .command('watch')
      .description('events as they happen; with a command, until it is settled. --json: one event per line')
      .argument('[commandId]', 'only this command')
      .option('--types <types>', 'only these, for instance execution.completed,client.offline', listOption)
      .option('--zone <zone>', 'only about clients of this zone')
      .option('--client <id>', 'only about this client'),
    watch,
  )
}

async function watch(session: ApiSession, { types, zone, client }: WatchOptions, commandId?: string): Promise<void> {
  if (commandId !== undefined && (types ?? zone ?? client) !== undefined) {
    throw new UsageError('watch: --types, --zone and --client are for watching everything, not one command')
  }
  const stop = new AbortController()
  process.removeAllListeners('SIGINT').once('SIGINT', () => stop.abort())
  const where =
    commandId === undefined
      ? withQuery('/events', { types: types?.join(','), zone, clientId: client })
      : path`/commands/${commandId}/stream`
  const events = readEventStream(session.target, where, {
    signal: stop.signal,
    onConnect: () => say(commandId === undefined ? 'watching; Ctrl-C ends it' : `watching ${commandId}`),
    onReconnect: (error) => say(`connecting again: ${error.message}`),
  })
  for await (const event of events) {
    if (event.type === 'settled') return settled(session, event)
    print(session, event)
  }
  // Only Ctrl-C gets here: the way to end a watch without a command.
  if (commandId === undefined) return
  say('interrupted; the command goes on')
  process.exitCode = EXIT.interrupted
}

function print({ out }: ApiSession, { data }: StreamEvent): void {
  console.log(out.json ? data : eventText(JSON.parse(data) as Event))
}

function settled({ out }: ApiSession, { data }: StreamEvent): void {
  const command = JSON.parse(data) as Command
  console.log(out.json ? data : commandText(command))
  if (!isCompleted(command)) throw new NotDoneError(`not every execution completed: ${countsText(command.counts)}`)
}
