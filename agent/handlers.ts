import { Progress } from '../schemas/executions.ts'
import { type Json, jsonFault } from '../schemas/json.ts'
import type { CommandMessage } from '../schemas/messages.ts'
import type { Outcome } from './attempts.ts'

/** 200 KiB: with its envelope a report stays under the 256 KiB of a packet (contract, 3). */
export const MAX_RESULT_BYTES = 200 * 1024

interface HandlerContext {
  id: string
  attempt: number
  action: string
  payload: Json | undefined
  /** Aborted when the command is cancelled or the agent stops. To throw then means: stopped, not done. */
  signal: AbortSignal
  /** Tells how far it is. The server gets the latest value, not every one. */
  progress(progress: Progress): void
}

/**
 * Does one command and returns its result, JSON of at most 200 KiB, or nothing. Throwing RejectedError answers
 * `rejected`; any other error `failed`, with the error's `code` if that is a string.
 */
export type Handler = (ctx: HandlerContext) => Promise<Json | undefined> | Promise<void> | Json | undefined

/** Thrown by a handler that will not do the command: it had no effect. */
export class RejectedError extends Error {
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.name = 'RejectedError'
    this.code = code
  }
}

/** Why a handler's signal was aborted; `signal.reason`. Its name makes `node:` functions' errors recognisable too. */
export class AbortedError extends Error {
  override readonly cause: 'cancel' | 'stop'

  constructor(cause: 'cancel' | 'stop', message: string) {
    super(message)
    this.name = 'AbortError'
    this.cause = cause
  }
}

/** Runs the handler to its end. Never throws: every end of a handler is an outcome. */
export async function runHandler(
  handler: Handler,
  command: CommandMessage,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void,
): Promise<Outcome> {
  const { id, attempt, action, payload } = command
  const progress = (value: Progress): void => {
    const checked = checkProgress(value)
    if (checked) onProgress(checked)
  }
  try {
    return completed(await handler({ id, attempt, action, payload, signal, progress }))
  } catch (error) {
    return outcomeOfError(error, signal)
  }
}

/** The outcome of a handler that returned. What it did is done, so a result that cannot be sent is said to be just that. */
function completed(value: unknown): Outcome {
  if (value === undefined) return { status: 'completed' }
  const text = stringify(value)
  const result: unknown = text === undefined ? undefined : JSON.parse(text)
  const fault = text === undefined ? 'is not JSON' : jsonFault(result)
  if (text === undefined || fault) {
    return unsendable('RESULT_NOT_JSON', `The action was carried out, but its result ${fault} and cannot be reported`)
  }
  const bytes = Buffer.byteLength(text)
  if (bytes > MAX_RESULT_BYTES) {
    const size = `${bytes} bytes of JSON, over the ${MAX_RESULT_BYTES} that fit in a report`
    return unsendable('RESULT_TOO_LARGE', `The action was carried out, but its result is ${size}`)
  }
  return { status: 'completed', result: result as Json }
}

/** It happened, so nothing may be tempted to do it again: completed, without the result and with the reason why. */
function unsendable(code: string, message: string): Outcome {
  return { status: 'completed', error: told(code, message) }
}

function outcomeOfError(thrown: unknown, signal: AbortSignal): Outcome {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown))
  if (error instanceof RejectedError) return { status: 'rejected', error: told(error.code, error.message) }
  if (signal.aborted && isAbort(error, signal)) {
    const reason = signal.reason as AbortedError
    if (reason.cause === 'cancel') return { status: 'cancelled', error: told('CANCELLED', reason.message) }
    return failed('AGENT_STOPPED', 'The agent was stopped, and the action stopped unfinished')
  }
  const code = 'code' in error && typeof error.code === 'string' && error.code !== '' ? error.code : 'HANDLER_ERROR'
  return failed(code, error.message || error.name)
}

function isAbort(error: Error, signal: AbortSignal): boolean {
  return error === signal.reason || error.cause === signal.reason || error.name === 'AbortError'
}

/** An outcome `failed`; texts are made such that the server can store them. */
function failed(code: string, message: string): Outcome {
  return { status: 'failed', error: told(code, message) }
}

/** PostgreSQL's jsonb refuses U+0000 and lone surrogates; the schema limits the lengths. */
function told(code: string, message: string): { code: string; message: string } {
  return { code: clean(code).slice(0, 200), message: clean(message.slice(0, 8000)) }
}

function clean(text: string): string {
  return text.toWellFormed().replaceAll('\u0000', '\ufffd')
}

function checkProgress(value: Progress): Progress | undefined {
  const parsed = Progress.safeParse(value)
  if (!parsed.success) return undefined
  const { message, ...counts } = parsed.data
  return message === undefined ? counts : { ...counts, message: clean(message.slice(0, 1000)) }
}

/** undefined for what JSON cannot say; NaN and the infinities would silently become null. */
function stringify(value: unknown): string | undefined {
  try {
    return JSON.stringify(value, (_, part: unknown) => {
      if (typeof part === 'number' && !Number.isFinite(part)) throw new Error('not JSON')
      return part
    })
  } catch {
    return undefined
  }
}
