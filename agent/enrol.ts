import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { z } from 'zod'
import type { EnrolmentLink } from '../schemas/enrolments.ts'
import { Problem } from '../schemas/errors.ts'
import { Id } from '../schemas/ids.ts'
import { parseJson } from '../schemas/json.ts'
import { type Backoff, reconnectDelay } from './backoff.ts'
import { beginCredentials, readCredentials, removeCredentials, writeCredentials } from './credentials.ts'
import type { AgentLog } from './log.ts'

/** The server's no: with this code there will be no other answer. */
export class EnrolmentRefusedError extends Error {}

export interface EnrolOptions {
  link: EnrolmentLink
  /** The id that is asked for; without it the server makes one. */
  clientId?: string | undefined
  /** Where id and key are kept, with what else is to be known at the next start. */
  file: string
  /** Of the MQTT listener. */
  url: string
  log: AgentLog
  signal: AbortSignal
  /** Default 1 s to 30 s. */
  retry?: Backoff
}

const ANSWER_MS = 30_000
/** All that is needed of the answer. */
const Redeemed = z.object({ client: z.object({ id: Id }) })

/**
 * Obtains an id with a code, for as long as it takes the server to answer. The key is made here and kept before it is sent: so a
 * request whose answer was lost, to a broken network or a crash, is repeated and gets the same client.
 * Throws EnrolmentRefusedError, or what `signal` was aborted with.
 */
export async function enrol(options: EnrolOptions): Promise<{ clientId: string; clientKey: string }> {
  const { file, url, log, signal, link, retry = { minMs: 1000, maxMs: 30_000 } } = options
  const { clientKey } =
    readCredentials(file) ?? beginCredentials(file, { clientKey: `sbk_${randomBytes(32).toString('base64url')}` })
  const since = performance.now()
  for (;;) {
    const answer = await redeem(options, clientKey)
    if ('clientId' in answer) {
      writeCredentials(file, { clientId: answer.clientId, clientKey, url })
      return { clientId: answer.clientId, clientKey }
    }
    if ('refusal' in answer) {
      // The next code begins with another key: this one belongs to nobody.
      removeCredentials(file)
      throw new EnrolmentRefusedError(answer.refusal)
    }
    log.warn({ url: link.url, reason: answer.failure }, 'Could not enrol')
    const waitMs = Math.max(answer.waitMs ?? 0, reconnectDelay(retry, performance.now() - since))
    await sleep(waitMs, undefined, { signal })
  }
}

type Answer = { clientId: string } | { refusal: string } | { failure: string; waitMs?: number }

async function redeem({ link, clientId, signal }: EnrolOptions, clientKey: string): Promise<Answer> {
  let response: Response
  let text: string
  try {
    response = await fetch(`${link.url}/api/enrolments/redeem`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ code: link.code, clientKey, clientId }),
      // A code is for the server that it was given for.
      redirect: 'manual',
      signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]),
    })
    text = await response.text()
  } catch (error) {
    signal.throwIfAborted()
    const { message, cause } = error as Error
    return { failure: cause instanceof Error ? `${message}: ${cause.message}` : message }
  }
  const { ok, status, headers } = response
  if (status === 429) return { failure: 'too many attempts', waitMs: retryAfterMs(headers) }
  if (status >= 500) return { failure: `status ${status}` }
  const body = parseJson(text)
  const redeemed = Redeemed.safeParse(body)
  if (ok && redeemed.success) return { clientId: redeemed.data.client.id }
  const problem = Problem.safeParse(body)
  if (problem.success) return { refusal: problem.data.detail }
  // A network that asks for a login first answers in the server's place, for a while.
  return { failure: `what answers is not Signalbox (status ${status})` }
}

/** Bounded: a proxy on the way may say anything. A date, which we never send, counts as nothing. */
function retryAfterMs(headers: Headers): number {
  const seconds = Number(headers.get('retry-after'))
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 60) * 1000 : 0
}
