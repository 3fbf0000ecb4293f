import { resolve } from 'node:path'
import { type Logger, pino } from 'pino'
import { Agent } from '../agent/agent.ts'
import { builtinHandlers } from '../agent/builtin-handlers.ts'
import { EnrolmentRefusedError } from '../agent/enrol.ts'
import { withoutSecrets } from '../schemas/secrets.ts'
import { AGENTS_FOLDER, type Identity, type IdentityOptions, identify } from './agent/identity.ts'
import { EXIT } from './failures.ts'

export interface AgentCommandOptions extends IdentityOptions {
  allow: string
  root: string
}

/**
 * Runs this machine as a client until SIGINT or SIGTERM. Exit code 2: the options do not make an agent; 3: the server refused
 * the enrolment.
 */
export async function runAgent(options: AgentCommandOptions): Promise<void> {
  const log = pino({ level: 'info', hooks: { streamWrite: withoutSecrets } }, pino.destination(2))
  const stopping = new AbortController()
  const abort = (): void => stopping.abort()
  process.once('SIGINT', abort)
  process.once('SIGTERM', abort)
  let agent: Agent
  try {
    const identity = await identify(options, log, stopping.signal)
    agent = create(options, identity, log)
    await agent.start()
  } catch (error) {
    if (stopping.signal.aborted) return
    return fail(error as Error)
  }
  const stop = (): void => void agent.stop({ graceMs: 10_000 }).then(() => process.exit(0))
  if (stopping.signal.aborted) return stop()
  stopping.signal.addEventListener('abort', stop)
}

function create(options: AgentCommandOptions, { clientId, clientKey, url }: Identity, log: Logger): Agent {
  const agent = new Agent({
    url,
    clientId,
    clientKey,
    topicRoot: options.root,
    journal: resolve(options.journal ?? `${AGENTS_FOLDER}/${clientId}.sqlite`),
    handlers: builtinHandlers({ allow: options.allow.split(',').filter(Boolean) }),
    log,
  })
  agent.on('connected', () => log.info({ clientId, url }, 'connected: commands can come'))
  return agent
}

function fail(error: Error): void {
  console.error(`signalbox agent: ${error.message}`)
  process.exitCode = error instanceof EnrolmentRefusedError ? EXIT.refused : EXIT.usage
}
