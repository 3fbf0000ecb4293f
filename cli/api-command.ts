import { type Command, InvalidArgumentError } from 'commander'
import { type Api, type ApiTarget, connectApi } from './api-client.ts'
import { EXIT } from './failures.ts'
import { createOutput, type Output } from './output.ts'
import { apiFromEnvironment, DEFAULT_URL } from './settings.ts'

export interface ApiSession {
  api: Api
  target: ApiTarget
  out: Output
}

interface ApiOptions {
  url?: string
  token?: string
  json?: boolean
}

export const addApiOptions = (command: Command): Command =>
  command
    .option('--url <url>', `the server (default: SIGNALBOX_URL, else ${DEFAULT_URL})`)
    .option('--token <token>', 'API token (default: SIGNALBOX_TOKEN, which no process list shows)')
    .option('--json', 'one JSON document on stdout and nothing else')

/** Gives a command the options of the API and runs it with what they name. */
export function onApi<Options extends object>(
  command: Command,
  run: (session: ApiSession, options: Options, ...args: string[]) => Promise<void>,
): Command {
  return addApiOptions(command).action(async (...given: unknown[]) => {
    const options = command.opts<Options & ApiOptions>()
    process.once('SIGINT', () => process.exit(EXIT.interrupted))
    await run(openSession(options), options, ...(given.slice(0, -2) as string[]))
  })
}

export function openSession({ url, token, json = false }: ApiOptions): ApiSession {
  const given = apiFromEnvironment()
  const target = { url: url ?? given.url, token: token ?? given.token }
  return { api: connectApi(target), target, out: createOutput(json) }
}

/** For numbers among the options: `within(0, 60)`. */
export const within =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text)
    if (text.trim() === '' || !(value >= min && value <= max)) {
      throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`)
    }
    return value
  }

export const jsonOption = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new InvalidArgumentError(`It is not JSON: ${(error as Error).message}`)
  }
}

/** `A,B` or repeated: one list. */
export const listOption = (text: string, before: string[] = []): string[] => [
  ...before,
  ...text
    .split(',')
    .map((item) => item.trim())
    .filter(Boolean),
]

export const limitOption = ['--limit <n>', 'at most so many', within(1, 1_000_000), 50] as const
