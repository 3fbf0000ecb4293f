import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { type Command as CliCommand, InvalidArgumentError } from 'commander'
import type { Command, CommandPreview, CreateCommand } from '../schemas/commands.ts'
import { type ApiSession, jsonOption, onApi, within } from './api-command.ts'
import { NotDoneError, RefusedError, UnreachableError, UsageError } from './failures.ts'
import { followCommand, isSettledCommand } from './follow-command.ts'
import { fields, say, table } from './output.ts'
import { commandProgress } from './progress.ts'
import { commandText, countsText, isCompleted } from './show-command.ts'

interface SendOptions {
  client?: string
  zone?: string
  broadcast?: true
  action: string
  payload?: unknown
  payloadFile?: string
  priority?: number
  ttl?: number
  notBefore?: string
  startTimeout?: number
  timeout?: number
  maxRetries?: number
  expect?: string
  wait?: number | true
  idempotencyKey?: string
  preview?: true
}

const seconds = within(1, 315_360_000)

function waitSeconds(text: string): number {
  const value = Number(text)
  if (text.trim() !== '' && value >= 0 && value <= 315_360_000) return value
  throw new InvalidArgumentError('It must be a number of seconds.')
}

export function addSend(program: CliCommand): void {
  onApi<SendOptions>(
    program
      .command('send')
      .description('send a command to a client, a zone or everybody')
      .option('--client <id>', 'to this client')
      .option('--zone <zone>', 'to every client of this zone')
      .option('--broadcast', 'to every client')
      .requiredOption('--action <name>', 'what to do')
      .option('--payload <json>', 'what to do it with', jsonOption)
      .option('--payload-file <file>', 'the same from a file; - is standard input')
      .option('--priority <n>', '1 to 10; 10 is the most urgent and passes the window', within(1, 10))
      .option('--ttl <seconds>', 'too late to start after it', seconds)
      .option('--not-before <time>', 'RFC 3339', String)
      .option('--start-timeout <seconds>', 'until the client says it started', seconds)
      .option('--timeout <seconds>', 'from running until the outcome', seconds)
      .option('--max-retries <n>', 'further attempts of an at_least_once action', within(0, 100))
      .option('--expect <hash>', 'refuse if the targets are others than in this preview')
      .option(
        '--wait [seconds]',
        'until every execution is settled, at most so long; 1 if not all completed',
        waitSeconds,
      )
      .option('--idempotency-key <key>', 'makes repeating safe (default: a random one)')
      .option('--preview', 'only show who would get it'),
    send,
  )
}

async function send({ api, out }: ApiSession, options: SendOptions): Promise<void> {
  const body = toBody(options)
  if (options.preview) {
    const preview = await api<CommandPreview>('POST', '/commands/preview', body)
    return out.show(preview, () => previewText(preview))
  }
  const command = await create({ api, out }, body, options.idempotencyKey)
  if (options.wait === undefined) return out.show(command, () => commandText(command))
  const wait = options.wait === true ? Number.POSITIVE_INFINITY : options.wait
  const interrupted = (): void => say(`interrupted; the command goes on: signalbox commands show ${command.id}`)
  process.prependOnceListener('SIGINT', interrupted)
  const progress = commandProgress()
  say(`sent ${command.id} to ${command.total}; waiting${Number.isFinite(wait) ? ` at most ${wait} s` : ''}`)
  const last = await followCommand(api, command, { seconds: wait, progress })
  out.show(last, () => commandText(last))
  if (isCompleted(last)) return
  throw new NotDoneError(
    isSettledCommand(last)
      ? `not every execution completed: ${countsText(last.counts)}`
      : `not settled within ${wait} s: ${countsText(last.counts)}; signalbox commands explain ${last.id}`,
  )
}

async function create(
  { api }: Pick<ApiSession, 'api' | 'out'>,
  body: CreateCommand,
  givenKey: string | undefined,
): Promise<Command> {
  const key = givenKey ?? randomUUID()
  try {
    return await api<Command>('POST', '/commands', body, { headers: { 'idempotency-key': key } })
  } catch (error) {
    const unsure =
      (error instanceof UnreachableError && error.maySent) ||
      (error instanceof RefusedError && error.problem.code === 'UNAVAILABLE')
    if (unsure) say(`Whether it was stored is not known. Repeating is safe with --idempotency-key ${key}`)
    throw error
  }
}

function toBody(options: SendOptions): CreateCommand {
  const { client, zone, broadcast, payload, payloadFile } = options
  if ([client, zone, broadcast].filter((target) => target !== undefined).length !== 1) {
    throw new UsageError('send: give exactly one of --client, --zone and --broadcast')
  }
  if (payload !== undefined && payloadFile !== undefined) {
    throw new UsageError('send: give --payload or --payload-file, not both')
  }
  return {
    clientId: client,
    zone,
    broadcast,
    action: options.action,
    payload: (payloadFile === undefined ? payload : readPayload(payloadFile)) as CreateCommand['payload'],
    priority: options.priority,
    ttlSeconds: options.ttl,
    notBefore: options.notBefore,
    startTimeoutSeconds: options.startTimeout,
    timeoutSeconds: options.timeout,
    maxRetries: options.maxRetries,
    expectedTargets: options.expect,
  }
}

function readPayload(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file === '-' ? 0 : file, 'utf8'))
  } catch (error) {
    throw new UsageError(`--payload-file ${file}: ${(error as Error).message}`)
  }
}

function previewText({ total, online, targets, excluded, hash }: CommandPreview): string {
  const rows = [
    ...targets.map((one) => [one.clientId, one.presence, one.pending, '']),
    ...excluded.map((one) => [one.clientId, '', '', one.reason]),
  ]
  const summary = fields({ targets: total, online, excluded: excluded.length, hash })
  return `${table(['client', 'presence', 'pending', 'excluded'], rows)}\n\n${summary}`
}
