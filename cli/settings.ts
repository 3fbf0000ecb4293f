import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseSettings, Settings, SettingsError } from '../schemas/settings.ts'

/**
 * Variables as they are, unchecked, with what a service manager hands over in files of the same names: systemd's LoadCredential, or
 * the secrets of a container engine. A variable that is set counts for more.
 */
export function rawEnvironment(): Readonly<Record<string, string | undefined>> {
  const folder = process.env.CREDENTIALS_DIRECTORY
  if (!folder) return process.env
  const handed = NAMES.filter((name) => !process.env[name] && existsSync(join(folder, name)))
  return { ...process.env, ...Object.fromEntries(handed.map((name) => [name, contentOf(join(folder, name))])) }
}

const NAMES = [...Object.keys(Settings.shape), 'SIGNALBOX_CLIENT_KEY', 'SIGNALBOX_ENROL', 'SIGNALBOX_TOKEN']

/** A text file ends with a line break, a secret does not. */
function contentOf(file: string): string {
  try {
    return readFileSync(file, 'utf8').trimEnd()
  } catch (error) {
    throw new SettingsError([`CREDENTIALS_DIRECTORY: ${(error as Error).message}`])
  }
}

/** The one place where the environment is read. A fault ends the process with code 1 and every fault named. */
export function settingsFromEnvironment(overrides: Partial<Record<keyof Settings, unknown>> = {}): Settings {
  try {
    return parseSettings({ ...rawEnvironment(), ...overrides })
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    console.error(`signalbox: ${error.message}`)
    process.exit(1)
  }
}

/** The key of the client that `signalbox agent` runs as. */
export const agentKeyFromEnvironment = (): string | undefined => rawEnvironment().SIGNALBOX_CLIENT_KEY || undefined

/** The link with which a new `signalbox agent` obtains its id and key. */
export const enrolmentFromEnvironment = (): string | undefined => rawEnvironment().SIGNALBOX_ENROL || undefined

export const DEFAULT_URL = 'http://127.0.0.1:3000'

/** Where the API is and who calls it, when no option says so. */
export const apiFromEnvironment = (): { url: string; token: string | undefined } => ({
  url: process.env.SIGNALBOX_URL || DEFAULT_URL,
  token: rawEnvironment().SIGNALBOX_TOKEN || undefined,
})

/** Whether lines on stderr may be redrawn (https://no-color.org). */
export const mayAnimate = (): boolean =>
  Boolean(process.stderr.isTTY) && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
