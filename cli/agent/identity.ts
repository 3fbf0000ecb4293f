import { dirname, join, resolve } from 'node:path'
import { readCredentials } from '../../agent/credentials.ts'
import { enrol } from '../../agent/enrol.ts'
import type { AgentLog } from '../../agent/log.ts'
import { type EnrolmentLink, parseEnrolmentLink } from '../../schemas/enrolments.ts'
import { UsageError } from '../failures.ts'
import { agentKeyFromEnvironment, enrolmentFromEnvironment } from '../settings.ts'

export interface IdentityOptions {
  url?: string
  id?: string
  key?: string
  enrol?: string
  credentials?: string
  journal?: string
}

/** Who the agent is, and where it connects. */
export interface Identity {
  clientId: string
  clientKey: string
  url: string
}

export const AGENTS_FOLDER = '.data/agents'
const DEFAULT_URL = 'mqtt://127.0.0.1:1883'

/**
 * By the options; else as it enrolled before; else by enrolling now, which takes as long as the server needs to answer.
 * Throws UsageError, EnrolmentRefusedError, or what `signal` was aborted with.
 */
export async function identify(options: IdentityOptions, log: AgentLog, signal: AbortSignal): Promise<Identity> {
  const { id, url, key = agentKeyFromEnvironment(), enrol: text = enrolmentFromEnvironment() } = options
  if (id !== undefined && key !== undefined) return { clientId: id, clientKey: key, url: url ?? DEFAULT_URL }
  const folder = options.journal === undefined ? AGENTS_FOLDER : dirname(options.journal)
  const file = resolve(options.credentials ?? join(folder, 'credentials.json'))
  const kept = readCredentials(file)
  if (kept?.clientId !== undefined) {
    const { clientId, clientKey } = kept
    if (id !== undefined && id !== clientId) throw new UsageError(`${file} is of client ${clientId}, not of ${id}`)
    if (text !== undefined) log.info({ clientId, file }, 'already enrolled: the code is not used')
    return { clientId, clientKey, url: url ?? kept.url ?? DEFAULT_URL }
  }
  if (text === undefined) {
    throw new UsageError(
      'give --id and the client key (--key, or better SIGNALBOX_CLIENT_KEY, which no process list shows), or --enrol',
    )
  }
  const link = parseEnrolmentLink(text)
  if (!link) throw new UsageError('--enrol: give the whole link, https://…/#sbe_…')
  if (travelsOpenly(link)) log.warn({ url: link.url }, 'http: whoever is on the way can read the code and the key')
  const at = url ?? mqttUrlOf(link)
  const enrolled = await enrol({ link, clientId: id, file, url: at, log, signal })
  log.info({ clientId: enrolled.clientId, file }, 'enrolled')
  return { ...enrolled, url: at }
}

const LOOPBACK = /^(127\.|localhost$|\[::1\]$)/
const travelsOpenly = ({ url }: EnrolmentLink): boolean =>
  url.startsWith('http:') && !LOOPBACK.test(new URL(url).hostname)

/** The same host's MQTT listener, at its default port. */
function mqttUrlOf({ url }: EnrolmentLink): string {
  const { protocol, hostname } = new URL(url)
  return protocol === 'https:' ? `mqtts://${hostname}:8883` : `mqtt://${hostname}:1883`
}
