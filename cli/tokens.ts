import type { Command } from 'commander'
import type { ListedPrincipal, Role, Token } from '../schemas/principals.ts'
import { path, readList } from './api-client.ts'
import { limitOption, onApi } from './api-command.ts'
import { table } from './output.ts'
import { addBridge } from './tokens/bridge.ts'

export function addTokens(program: Command): void {
  const tokens = program.command('tokens').description('what principals call the API with')

  onApi<{ limit: number }>(
    tokens
      .command('list')
      .description('tokens that were not revoked')
      .option(...limitOption),
    async ({ api, out }, { limit }) => {
      const list = await readList<Token>(api, '/tokens', {}, limit)
      out.show(list, () =>
        table(
          ['id', 'principal', 'name', 'created', 'expires', 'last used'],
          list.items.map((one) => [
            one.id,
            one.principal,
            one.name,
            one.createdAt,
            one.expiresAt ?? 'never',
            one.lastUsedAt ?? 'never',
          ]),
          'no tokens',
        ),
      )
    },
  )

  onApi<{ role: Role }>(
    tokens
      .command('create')
      .description('a principal with its first token, which is shown once')
      .argument('<name>')
      .requiredOption('--role <role>', 'admin, operator, technician or viewer'),
    async ({ api, out }, { role }, name) => {
      const created = await api<{ principal: ListedPrincipal; token: string }>('POST', '/principals', { name, role })
      out.show(created, () => created.token)
    },
  )

  onApi<{ name: string; expires?: string }>(
    tokens
      .command('add')
      .description('a further token of a principal, shown once')
      .argument('<principalId>')
      .requiredOption('--name <text>', 'what it is for')
      .option('--expires <time>', 'RFC 3339, for instance 2030-01-01T00:00:00Z'),
    async ({ api, out }, { name, expires }, principalId) => {
      const created = await api<{ id: string; token: string }>('POST', '/tokens', {
        principalId,
        name,
        ...(expires === undefined ? {} : { expiresAt: expires }),
      })
      out.show(created, () => created.token)
    },
  )

  onApi(
    tokens.command('revoke').description('it stops working at once').argument('<tokenId>'),
    async ({ api, out }, _, id) => {
      await api('DELETE', path`/tokens/${id}`)
      out.show({ id, revoked: true }, () => `${id} is revoked`)
    },
  )

  addBridge(tokens)
}
