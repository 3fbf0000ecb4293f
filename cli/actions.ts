import { readFileSync } from 'node:fs'
import { type Command, Option } from 'commander'
import type { Action } from '../schemas/actions.ts'
import { Delivery } from '../schemas/executions.ts'
import { path, readList } from './api-client.ts'
import { jsonOption, limitOption, onApi, within } from './api-command.ts'
import { UsageError } from './failures.ts'
import { fields, table } from './output.ts'

interface PutOptions {
  file?: string
  schema?: object
  delivery?: string
  startTimeout?: number
  timeout?: number
  ttl?: number
  maxRetries?: number
  priority?: number
  description?: string
}

const seconds = within(1, 315_360_000)

export function addActions(program: Command): void {
  const actions = program.command('actions').description('how commands are checked, delivered and timed, by action')

  const list = actions
    .command('list')
    .description('registered actions')
    .option(...limitOption)
  onApi<{ limit: number }>(list, async ({ api, out }, { limit }) => {
    const list = await readList<Action>(api, '/actions', {}, limit)
    out.show(list, () =>
      table(
        ['name', 'delivery', 'priority', 'retries', 'schema', 'description'],
        list.items.map((one) => [
          one.name,
          one.delivery,
          one.priority,
          one.maxRetries,
          one.payloadSchema ? 'yes' : 'no',
          one.description,
        ]),
        'no actions: every command is at_most_once',
      ),
    )
  })

  onApi(actions.command('show').description('one action').argument('<name>'), async ({ api, out }, _, name) => {
    const action = await api<Action>('GET', path`/actions/${name}`)
    out.show(action, () => fields({ ...action }))
  })

  onApi<PutOptions>(
    actions
      .command('put')
      .description('register or replace an action; options win over --file')
      .argument('<name>')
      .option('--file <file>', 'its definition as JSON; - is standard input')
      .option('--schema <json>', 'JSON Schema of the payload', jsonOption)
      .addOption(new Option('--delivery <class>', 'how often it may be tried').choices(Delivery.options))
      .option('--start-timeout <seconds>', 'until the client says it started', seconds)
      .option('--timeout <seconds>', 'from running until the outcome', seconds)
      .option('--ttl <seconds>', 'too late to start after it', seconds)
      .option('--max-retries <n>', 'further attempts of an at_least_once action', within(0, 100))
      .option('--priority <n>', '1 to 10', within(1, 10))
      .option('--description <text>', 'for people'),
    async ({ api, out }, options, name) => {
      const action = await api<Action>('PUT', path`/actions/${name}`, {
        ...fromFile(options.file),
        ...fromFlags(options),
      })
      out.show(action, () => fields({ ...action }))
    },
  )

  onApi(
    actions.command('delete').description('forget an action; it is at_most_once from then on').argument('<name>'),
    async ({ api, out }, _, name) => {
      await api('DELETE', path`/actions/${name}`)
      out.show({ name, deleted: true }, () => `${name} is forgotten`)
    },
  )
}

function fromFile(file: string | undefined): object {
  if (file === undefined) return {}
  try {
    const { name: _, updatedAt: __, ...definition } = JSON.parse(readFileSync(file === '-' ? 0 : file, 'utf8'))
    return definition
  } catch (error) {
    throw new UsageError(`--file ${file}: ${(error as Error).message}`)
  }
}

function fromFlags(options: PutOptions): object {
  const { schema, delivery, startTimeout, timeout, ttl, maxRetries, priority, description } = options
  const flags = {
    payloadSchema: schema,
    delivery,
    startTimeoutSeconds: startTimeout,
    timeoutSeconds: timeout,
    ttlSeconds: ttl,
    maxRetries,
    priority,
    description,
  }
  return Object.fromEntries(Object.entries(flags).filter(([, value]) => value !== undefined))
}
