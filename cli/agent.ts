import { resolve } from 'node:path'
import { pino } from 'pino'
import { Agent } from '../agent/agent.ts'
import { builtinHandlers } from '../agent/builtin-handlers.ts'
import { withoutSecrets } from '../schemas/secrets.ts'
import { agentKeyFromEnvironment } from './settings.ts'

export interface AgentCommandOptions {
  url: string
  id: string
  key?: string
  journal?: string
  allow: string
  root: string
}

/** Runs this machine as a client until SIGINT or SIGTERM. Exit code 2: the options do not make an agent. */
export async function runAgent(options: AgentCommandOptions): Promise<void> {
  const clientKey = options.key ?? agentKeyFromEnvironment()
  if (!clientKey) return fail('give the client key: --key, or better SIGNALBOX_CLIENT_KEY, which no process list shows')
  const log = pino({ level: 'info', hooks: { streamWrite: withoutSecrets } }, pino.destination(2))
  let agent: Agent
  try {
    agent = new Agent({
      url: options.url,
      clientId: options.id,
      clientKey,
      topicRoot: options.root,
      journal: resolve(options.journal ?? `.data/agents/${options.id}.sqlite`),
      handlers: builtinHandlers({ allow: options.allow.split(',').filter(Boolean) }),
      log,
    })
    await agent.start()
  } catch (error) {
    return fail((error as Error).message)
  }
  agent.on('connected', () => log.info({ clientId: options.id, url: options.url }, 'connected: commands can come'))
  const stop = (): void => void agent.stop({ graceMs: 10_000 }).then(() => process.exit(0))
  process.once('SIGINT', stop)
  process.once('SIGTERM', stop)
}

function fail(message: string): void {
  console.error(`signalbox agent: ${message}`)
  process.exitCode = 2
}
