import { type Command, Option } from 'commander'
import { type Alert, AlertKind, ListAlerts } from '../schemas/alerts.ts'
import { path, readList } from './api-client.ts'
import { limitOption, onApi } from './api-command.ts'
import { fields, table } from './output.ts'

const STATES = ListAlerts.shape.state.unwrap().options

export function addAlerts(program: Command): void {
  const alerts = program.command('alerts').description('what somebody should look at')

  onApi<{ limit: number; state?: string; kind?: string; client?: string; command?: string }>(
    alerts
      .command('list')
      .description('alerts, newest first')
      .addOption(new Option('--state <state>', 'in this state (default: not resolved)').choices(STATES))
      .addOption(new Option('--kind <kind>', 'of this kind').choices(AlertKind.options))
      .option('--client <id>', 'about this client')
      .option('--command <id>', 'about this command')
      .option(...limitOption),
    async ({ api, out }, { limit, state, kind, client, command }) => {
      const list = await readList<Alert>(api, '/alerts', { state, kind, clientId: client, commandId: command }, limit)
      out.show(list, () =>
        table(
          ['id', 'opened', 'severity', 'state', 'kind', 'count', 'message'],
          list.items.map((one) => [one.id, one.openedAt, one.severity, one.state, one.kind, one.count, one.message]),
          'no alerts',
        ),
      )
    },
  )

  onApi<{ note?: string }>(
    alerts
      .command('acknowledge')
      .description('say that you have seen it; that ends an alert about failed commands, others end by themselves')
      .argument('<id>')
      .option('--note <text>', 'what you know or did'),
    async ({ api, out }, { note }, id) => {
      const alert = await api<Alert>('POST', path`/alerts/${id}/acknowledge`, { note })
      out.show(alert, () => fields({ ...alert }))
    },
  )
}
