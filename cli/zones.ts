import type { Command } from 'commander'
import type { Client } from '../schemas/clients.ts'
import type { Zone } from '../schemas/zones.ts'
import { path, readList } from './api-client.ts'
import { limitOption, onApi } from './api-command.ts'
import { table } from './output.ts'

export function addZones(program: Command): void {
  const zones = program.command('zones').description('named groups of clients; a zone exists while it has members')

  onApi<{ limit: number }>(
    zones
      .command('list')
      .description('zones by name, with how many clients each has')
      .option(...limitOption),
    async ({ api, out }, { limit }) => {
      const list = await readList<Zone>(api, '/zones', {}, limit)
      out.show(list, () =>
        table(
          ['zone', 'clients', 'online'],
          list.items.map((one) => [one.zone, one.clients, one.online]),
          'no zones',
        ),
      )
    },
  )

  onApi(
    zones.command('add').description('put a client into a zone').argument('<zone>').argument('<clientId>'),
    async ({ api, out }, _, zone, clientId) => {
      const client = await api<Client>('PUT', path`/zones/${zone}/clients/${clientId}`)
      out.show(client, () => `${clientId} is in ${client.zones.join(', ')}`)
    },
  )

  onApi(
    zones.command('remove').description('take a client out of a zone').argument('<zone>').argument('<clientId>'),
    async ({ api, out }, _, zone, clientId) => {
      await api('DELETE', path`/zones/${zone}/clients/${clientId}`)
      out.show({ zone, clientId, removed: true }, () => `${clientId} is not in ${zone} any more`)
    },
  )
}
