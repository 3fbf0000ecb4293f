import { parseSettings, type Settings, SettingsError } from '../schemas/settings.ts'

/** The one place where the environment is read. A fault ends the process with code 1 and every fault named. */
export function settingsFromEnvironment(overrides: Partial<Record<keyof Settings, unknown>> = {}): Settings {
  try {
    return parseSettings({ ...process.env, ...overrides })
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    console.error(`signalbox: ${error.message}`)
    process.exit(1)
  }
}

/** Variables as they are, unchecked: for `doctor`, which explains faults instead of ending with them. */
export const rawEnvironment = (): Readonly<Record<string, string | undefined>> => process.env

/** The key of the client that `signalbox agent` runs as. */
export const agentKeyFromEnvironment = (): string | undefined => process.env.SIGNALBOX_CLIENT_KEY || undefined

/** The link with which a new `signalbox agent` obtains its id and key. */
export const enrolmentFromEnvironment = (): string | undefined => process.env.SIGNALBOX_ENROL || undefined

export const DEFAULT_URL = 'http://127.0.0.1:3000'

/** Where the API is and who calls it, when no option says so. */
export const apiFromEnvironment = (): { url: string; token: string | undefined } => ({
  url: process.env.SIGNALBOX_URL || DEFAULT_URL,
  token: process.env.SIGNALBOX_TOKEN || undefined,
})

/** Whether lines on stderr may be redrawn (https://no-color.org). */
export const mayAnimate = (): boolean =>
  Boolean(process.stderr.isTTY) && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
