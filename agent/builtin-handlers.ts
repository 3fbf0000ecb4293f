import { arch, freemem, hostname, loadavg, platform, release, totalmem, uptime } from 'node:os'
import { z } from 'zod'
import { type Handler, RejectedError } from './handlers.ts'
import { type Program, runProgram } from './program.ts'
import { screenshotHandler } from './screenshot.ts'

const BUILTIN_ACTIONS = ['status', 'message', 'screenshot', 'shutdown'] as const
type BuiltinAction = (typeof BUILTIN_ACTIONS)[number]

interface ShownMessage {
  title?: string
  text: string
}

export interface BuiltinOptions {
  /** Actions that this device carries out. Default: `status` and `message`; the others must be allowed by name. */
  allow?: readonly string[]
  /** Version of the software on this device, told by `status`. */
  version?: string
  /** Shows a message to whoever stands before the device. Default: prints it. */
  show?: (message: ShownMessage) => void | Promise<void>
  /** Takes a screenshot into the file that `{file}` in its arguments stands for. Default: what the platform has. */
  screenshot?: Program
  /** Default: shuts down in a minute, so that the outcome is reported before the machine goes. */
  shutdown?: Program
}

const Message = z.object({ title: z.string().max(200).optional(), text: z.string().min(1).max(10_000) })
const SHUTDOWN: Program =
  process.platform === 'win32'
    ? { command: 'shutdown', args: ['/s', '/t', '60'] }
    : { command: 'shutdown', args: ['-h', '+1'] }

/**
 * The actions every agent can have. One that is not allowed is rejected with ACTION_NOT_ALLOWED.
 * Throws if `allow` names an action that does not exist.
 */
export function builtinHandlers(options: BuiltinOptions = {}): Record<BuiltinAction, Handler> {
  const { allow = ['status', 'message'], version, show = print, screenshot, shutdown = SHUTDOWN } = options
  const unknown = allow.filter((action) => !(BUILTIN_ACTIONS as readonly string[]).includes(action))
  if (unknown.length > 0) throw new Error(`allow: no such action: ${unknown.join(', ')}`)
  const all: Record<BuiltinAction, Handler> = {
    status: () => statusOf(version),
    message: messageHandler(show),
    screenshot: screenshotHandler(screenshot),
    shutdown: shutdownHandler(shutdown),
  }
  const entries = BUILTIN_ACTIONS.map((action) => [action, allow.includes(action) ? all[action] : refuse] as const)
  return Object.fromEntries(entries) as Record<BuiltinAction, Handler>
}

const refuse: Handler = ({ action }) => {
  throw new RejectedError('ACTION_NOT_ALLOWED', `${action} is not allowed on this device`)
}

function statusOf(agentVersion: string | undefined) {
  return {
    platform: platform(),
    release: release(),
    arch: arch(),
    hostname: hostname(),
    uptimeSeconds: Math.floor(uptime()),
    memory: { totalBytes: totalmem(), freeBytes: freemem() },
    load: loadavg(),
    node: process.version,
    agentVersion: agentVersion ?? null,
  }
}

function messageHandler(show: (message: ShownMessage) => void | Promise<void>): Handler {
  return async ({ payload }) => {
    const { data, error } = Message.safeParse(payload)
    if (error) throw new RejectedError('INVALID_PAYLOAD', 'The payload must be {title?, text}')
    await show(data)
    return { shown: true }
  }
}

function shutdownHandler(program: Program): Handler {
  return async ({ signal }) => {
    const { code, output } = await runProgram(program, signal)
    if (code === 0) return { scheduled: true }
    const error = new Error(`${program.command} ended with ${code}: ${output}`)
    throw Object.assign(error, { code: 'SHUTDOWN_FAILED' })
  }
}

function print({ title, text }: ShownMessage): void {
  process.stdout.write(`${title === undefined ? '' : `${title}: `}${text}\n`)
}
