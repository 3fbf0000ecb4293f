import type { Command } from 'commander'
import type { z } from 'zod'
import type { Client, QueueEntry } from '../schemas/clients.ts'
import { path, readList } from './api-client.ts'
import { jsonOption, limitOption, listOption, onApi, within } from './api-command.ts'
import { importClients } from './clients-import.ts'
import { UsageError } from './failures.ts'
import { fields, table } from './output.ts'

interface ClientFields {
  name?: string
  /** False: --no-zones. */
  zones?: string[] | false
  maxInFlight?: number
  metadata?: object
}

const clientFields = (command: Command): Command =>
  command
    .option('--name <name>', 'for people')
    .option('--zones <zones>', 'A,B: the zones it is in', listOption)
    .option('--max-in-flight <n>', 'executions it may have at once', within(1, 1000))
    .option('--metadata <json>', 'an object of your own', jsonOption)

const given = ({ name, zones, maxInFlight, metadata }: ClientFields) => ({
  name,
  zones: zones === false ? [] : zones,
  maxInFlight,
  metadata,
})

const shown = (client: Client): string => fields({ ...client, disabled: client.disabled ? 'yes' : 'no' })

export function addClients(program: Command): void {
  const clients = program.command('clients').description('register devices and look at them')

  onApi<{ limit: number; zone?: string; presence?: string; search?: string; disabled?: true }>(
    clients
      .command('list')
      .description('clients by id')
      .option('--zone <zone>', 'of this zone')
      .option('--presence <presence>', 'online or offline')
      .option('--disabled', 'only disabled ones')
      .option('--search <text>', 'in id or name')
      .option(...limitOption),
    async ({ api, out }, { limit, zone, presence, search, disabled }) => {
      const query = { zone, presence, q: search, disabled: disabled ? 'true' : undefined }
      const list = await readList<Client>(api, '/clients', query, limit)
      out.show(list, () =>
        table(
          ['id', 'presence', 'since', 'zones', 'name', 'disabled'],
          list.items.map((one) => [
            one.id,
            one.presence,
            one.presenceSince,
            one.zones,
            one.name,
            one.disabled ? 'disabled' : '',
          ]),
          'no clients',
        ),
      )
    },
  )

  onApi(
    clients.command('show').description('one client: presence, zones, what it reported').argument('<id>'),
    async ({ api, out }, _, id) => {
      const client = await api<Client>('GET', path`/clients/${id}`)
      out.show(client, () => shown(client))
    },
  )

  onApi<ClientFields>(
    clientFields(clients.command('create').description('register a client; its key is shown once').argument('<id>')),
    async ({ api, out }, options, id) => {
      const created = await api<{ client: Client; clientKey: string }>('POST', '/clients', { id, ...given(options) })
      out.show(created, () => `${shown(created.client)}\n\nkey, shown only now: ${created.clientKey}`)
    },
  )

  onApi<ClientFields>(
    clientFields(
      clients.command('update').description('change its name, zones, window or metadata').argument('<id>'),
    ).option('--no-zones', 'take it out of every zone'),
    async ({ api, out }, options, id) => {
      const change = given(options)
      if (Object.values(change).every((value) => value === undefined)) {
        throw new UsageError('clients update: give at least one of --name, --zones, --max-in-flight, --metadata')
      }
      const client = await api<Client>('PATCH', path`/clients/${id}`, change)
      out.show(client, () => shown(client))
    },
  )

  onApi(
    clients.command('delete').description('delete a client; its history stays').argument('<id>'),
    async ({ api, out }, _, id) => {
      await api('DELETE', path`/clients/${id}`)
      out.show({ id, deleted: true }, () => `${id} is deleted`)
    },
  )

  for (const verb of ['enable', 'disable'] as const) {
    const description = verb === 'enable' ? 'let it connect again' : 'end its sessions and refuse new ones'
    onApi(clients.command(verb).description(description).argument('<id>'), async ({ api, out }, _, id) => {
      const client = await api<Client>('POST', path`/clients/${id}/${verb}`)
      out.show(client, () => `${id} is ${verb}d`)
    })
  }

  onApi<{ grace?: number }>(
    clients
      .command('rotate-key')
      .description('a new key; the old one stops working at once, or after a grace')
      .argument('<id>')
      .option('--grace <seconds>', 'how long both keys work', within(0, 2_592_000)),
    async ({ api, out }, { grace }, id) => {
      const body = grace === undefined ? undefined : { graceSeconds: grace }
      const rotated = await api<{ clientKey: string }>('POST', path`/clients/${id}/rotate-key`, body)
      out.show(rotated, () => `key of ${id}, shown only now: ${rotated.clientKey}`)
    },
  )

  onApi(
    clients.command('queue').description('its unsettled work in the order in which it goes out').argument('<id>'),
    async ({ api, out }, _, id) => {
      const queue = await api<{ items: z.infer<typeof QueueEntry>[] }>('GET', path`/clients/${id}/queue`)
      out.show(queue, () =>
        table(
          ['command', 'action', 'status', 'attempt', 'priority', 'created', 'expires'],
          queue.items.map((entry) => [
            entry.commandId,
            entry.action,
            entry.status,
            entry.attempt,
            entry.priority,
            entry.createdAt,
            entry.expiresAt,
          ]),
          `nothing waits for ${id}`,
        ),
      )
    },
  )

  onApi<{ concurrency: number }>(
    clients
      .command('import')
      .description('register many: .csv with a heading id,name,zones (A;B),maxInFlight,metadata.*, or .json, a list')
      .argument('<file>')
      .option('--concurrency <n>', 'requests at once', within(1, 64), 8),
    importClients,
  )
}
