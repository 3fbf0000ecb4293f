import { type Command as CliCommand, Option } from 'commander'
import type { CancelOutcome, Command, Explanation, RetryOutcome } from '../schemas/commands.ts'
import type { Event } from '../schemas/events.ts'
import { type Execution, STATUSES } from '../schemas/executions.ts'
import { path, readList } from './api-client.ts'
import { limitOption, listOption, onApi, within } from './api-command.ts'
import { UsageError } from './failures.ts'
import { table } from './output.ts'
import { commandText, countsText, eventText, targetText } from './show-command.ts'

const statusOption = () => new Option('--status <status>', 'only in this status').choices(STATUSES)

export function addCommands(program: CliCommand): void {
  const commands = program.command('commands').description('what was sent, and what became of it')

  onApi<{
    limit: number
    status?: string
    client?: string
    zone?: string
    action?: string
    after?: string
    before?: string
  }>(
    commands
      .command('list')
      .description('commands, newest first')
      .addOption(statusOption())
      .option('--client <id>', 'for this client')
      .option('--zone <zone>', 'for this zone')
      .option('--action <name>', 'with this action')
      .option('--after <time>', 'created after (RFC 3339)')
      .option('--before <time>', 'created before (RFC 3339)')
      .option(...limitOption),
    async ({ api, out }, { limit, status, client, zone, action, after, before }) => {
      const query = { status, clientId: client, zone, action, createdAfter: after, createdBefore: before }
      const list = await readList<Command>(api, '/commands', query, limit)
      out.show(list, () =>
        table(
          ['id', 'created', 'action', 'target', 'status', 'executions'],
          list.items.map((one) => [
            one.id,
            one.createdAt,
            one.action,
            targetText(one.target),
            one.status,
            countsText(one.counts),
          ]),
          'no commands',
        ),
      )
    },
  )

  onApi(commands.command('show').description('one command').argument('<id>'), async ({ api, out }, _, id) => {
    const command = await api<Command>('GET', path`/commands/${id}`)
    out.show(command, () => commandText(command))
  })

  onApi<{ limit: number; status?: string }>(
    commands
      .command('executions')
      .description('the command on each of its clients')
      .argument('<id>')
      .addOption(statusOption())
      .option(...limitOption),
    async ({ api, out }, { limit, status }, id) => {
      const list = await readList<Execution>(api, path`/commands/${id}/executions`, { status }, limit)
      out.show(list, () =>
        table(
          ['client', 'status', 'attempt', 'started', 'completed', 'result or error'],
          list.items.map((one) => [
            one.clientId,
            one.status,
            one.attempt,
            one.startedAt,
            one.completedAt,
            one.error ? `${one.error.code}: ${one.error.message}` : (one.result ?? one.progress),
          ]),
        ),
      )
    },
  )

  onApi<{ limit: number; client?: string }>(
    commands
      .command('timeline')
      .description('its events in order')
      .argument('<id>')
      .option('--client <id>', 'of this client')
      .option(...limitOption),
    async ({ api, out }, { limit, client }, id) => {
      const list = await readList<Event>(api, path`/commands/${id}/timeline`, { clientId: client }, limit)
      out.show(list, () => list.items.map(eventText).join('\n'))
    },
  )

  onApi(
    commands.command('explain').description('why what is unfinished has not moved').argument('<id>'),
    async ({ api, out }, _, id) => {
      const explained = await api<{ items: Explanation[] }>('GET', path`/commands/${id}/explain`)
      out.show(explained, () =>
        table(
          ['client', 'status', 'attempt', 'code', 'why'],
          explained.items.map((one) => [one.clientId, one.status, one.attempt, one.code, one.message]),
          'nothing is unfinished',
        ),
      )
    },
  )

  onApi<{ reason?: string; clients?: string[] }>(
    commands
      .command('cancel')
      .description('withdraw what was not handed over, ask the clients about the rest')
      .argument('<id>')
      .option('--reason <text>', 'told to the clients')
      .option('--clients <ids>', 'only for these', listOption),
    async ({ api, out }, { reason, clients }, id) => {
      const outcome = await api<CancelOutcome>('POST', path`/commands/${id}/cancel`, { reason, clientIds: clients })
      const { cancelled, requested, tooLate } = outcome
      out.show(outcome, () => `${cancelled} cancelled, ${requested} asked of their clients, ${tooLate} too late`)
    },
  )

  onApi<{ ttl?: number; clients?: string[] }>(
    commands
      .command('retry')
      .description('a new attempt of what failed, was rejected, expired or is unknown')
      .argument('<id>')
      .option('--ttl <seconds>', 'time to live from now (default: the original one)', within(1, 315_360_000))
      .option('--clients <ids>', 'only for these', listOption),
    async ({ api, out }, { ttl, clients }, id) => {
      const outcome = await api<RetryOutcome>('POST', path`/commands/${id}/retry`, {
        ttlSeconds: ttl,
        clientIds: clients,
      })
      out.show(outcome, () => `${outcome.retried} will be tried again, ${outcome.skipped} skipped`)
    },
  )

  onApi<{ outcome: string; note: string }>(
    commands
      .command('resolve')
      .description('end an unknown outcome by your word, or permit another run')
      .argument('<id>')
      .argument('<clientId>')
      .addOption(
        new Option('--outcome <outcome>', 'what you know')
          .choices(['completed', 'failed', 'retry'])
          .makeOptionMandatory(),
      )
      .requiredOption('--note <text>', 'how you know'),
    async ({ api, out }, { outcome, note }, id, clientId) => {
      const body = { outcome, note }
      const command = await api<Command>('POST', path`/commands/${id}/executions/${clientId as string}/resolve`, body)
      out.show(command, () => commandText(command))
    },
  )

  onApi<{ priority?: number; expiresAt?: string }>(
    commands
      .command('update')
      .description('change priority and expiry of what is still pending')
      .argument('<id>')
      .option('--priority <n>', '1 to 10', within(1, 10))
      .option('--expires-at <time>', 'RFC 3339'),
    async ({ api, out }, { priority, expiresAt }, id) => {
      if (priority === undefined && expiresAt === undefined) {
        throw new UsageError('commands update: give --priority, --expires-at or both')
      }
      const command = await api<Command>('PATCH', path`/commands/${id}`, { priority, expiresAt })
      out.show(command, () => commandText(command))
    },
  )
}
