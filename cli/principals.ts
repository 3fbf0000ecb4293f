import { type Command, InvalidArgumentError } from 'commander'
import { type Grant, type ListedPrincipal, scopeName } from '../schemas/principals.ts'
import { type Api, path, readList } from './api-client.ts'
import { limitOption, listOption, onApi, within } from './api-command.ts'
import { UsageError } from './failures.ts'
import { table } from './output.ts'

export function addPrincipals(program: Command): void {
  const principals = program.command('principals').description('who may call the API, and what operators may send')

  onApi<{ limit: number }>(
    principals
      .command('list')
      .description('principals by name')
      .option(...limitOption),
    async ({ api, out }, { limit }) => {
      const list = await readList<ListedPrincipal>(api, '/principals', {}, limit)
      out.show(list, () =>
        table(
          ['id', 'name', 'role', 'created'],
          list.items.map((one) => [one.id, one.name, one.role, one.createdAt]),
          'no principals',
        ),
      )
    },
  )

  onApi(
    principals.command('delete').description('its tokens stop working at once').argument('<name>'),
    async ({ api, out }, _, name) => {
      await api('DELETE', path`/principals/${await idOf(api, name)}`)
      out.show({ name, deleted: true }, () => `${name} is deleted`)
    },
  )

  onApi(
    principals.command('grants').description('what an operator may send, where, and how much').argument('<name>'),
    async ({ api, out }, _, name) => {
      const grants = await api<Grant[]>('GET', path`/principals/${await idOf(api, name)}/grants`)
      out.show(grants, () => shown(name, grants))
    },
  )

  onApi<{ scope: Grant['scope']; actions: string[]; perDay: number; perMinute: number }>(
    principals
      .command('grant')
      .description('let an operator send; replaces its grant of the same scope')
      .argument('<name>')
      .requiredOption('--scope <scope>', '"*", zone:A or client:pda-7; the most specific one decides', scopeOption)
      .requiredOption('--actions <actions>', 'print,lock, or "*" for any', listOption)
      .requiredOption('--per-day <n>', 'executions per day', within(0, 1_000_000_000))
      .requiredOption('--per-minute <n>', 'commands per minute', within(0, 1_000_000)),
    async ({ api, out }, { scope, actions, perDay, perMinute }, name) => {
      const given: Grant = { scope, actions, maxCommandsPerDay: perDay, commandsPerMinute: perMinute }
      const grants = await change(api, name, scope, [given])
      out.show(grants, () => shown(name, grants))
    },
  )

  onApi<{ scope: Grant['scope'] }>(
    principals
      .command('ungrant')
      .description("take an operator's grant of a scope away")
      .argument('<name>')
      .requiredOption('--scope <scope>', '"*", zone:A or client:pda-7', scopeOption),
    async ({ api, out }, { scope }, name) => {
      const grants = await change(api, name, scope, [])
      out.show(grants, () => shown(name, grants))
    },
  )
}

/** Puts these grants in the place of the one of this scope. */
async function change(api: Api, name: string, scope: Grant['scope'], instead: Grant[]): Promise<Grant[]> {
  const at = path`/principals/${await idOf(api, name)}/grants`
  const others = (await api<Grant[]>('GET', at)).filter((one) => scopeName(one) !== scopeName({ scope }))
  return api<Grant[]>('PUT', at, [...others, ...instead])
}

async function idOf(api: Api, name: string): Promise<string> {
  const { items } = await readList<ListedPrincipal>(api, '/principals', {}, 1_000_000)
  const found = items.find((one) => one.name === name || one.id === name)
  if (!found) throw new UsageError(`there is no principal ${name}`)
  return found.id
}

function scopeOption(text: string): Grant['scope'] {
  if (text === '*') return '*'
  const [kind, id] = text.split(':')
  if (id && kind === 'zone') return { zone: id }
  if (id && kind === 'client') return { clientId: id }
  throw new InvalidArgumentError('It must be "*", zone:ZONE or client:CLIENT.')
}

const shown = (name: string, grants: Grant[]): string =>
  table(
    ['scope', 'actions', 'per day', 'per minute'],
    grants.map((one) => [scopeName(one), one.actions, one.maxCommandsPerDay, one.commandsPerMinute]),
    `${name} has no grants`,
  )
