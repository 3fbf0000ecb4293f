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

/** The key of the client that `signalbox agent` runs as. */
export const agentKeyFromEnvironment = (): string | undefined => process.env.SIGNALBOX_CLIENT_KEY
