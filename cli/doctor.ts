import { once } from 'node:events'
import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { createServer } from 'node:net'
import { arch, platform } from 'node:os'
import { dirname, resolve } from 'node:path'
import { tryDatabase, tryRedis } from '../app.ts'
import { hasTls, parseSettings, plainHost, Settings, SettingsError } from '../schemas/settings.ts'
import { connectApi } from './api-client.ts'
import { NotDoneError, reasonOf } from './failures.ts'
import { createOutput, table } from './output.ts'
import { apiFromEnvironment, DEFAULT_URL, rawEnvironment } from './settings.ts'

export interface DoctorOptions {
  url?: string
  token?: string
  json?: boolean
}

interface Check {
  name: string
  /** A note is worth knowing and no fault. */
  state: 'ok' | 'note' | 'broken'
  detail: string
}

const OLDEST_NODE = 24
const OLDEST_POSTGRES = 15
const HEALTH_TIMEOUT_MS = 5000

/** Looks at everything a server needs here. Exit code 1 if something is broken. */
export async function doctor(options: DoctorOptions): Promise<void> {
  const checks: Check[] = [checkNode(), checkPlatform()]
  const settings = readSettings(checks)
  const server = await checkServer(options)
  if (settings) {
    checks.push(await checkDataDir(settings), await checkDatabase(settings), ...(await checkRedis(settings)))
    for (const place of LISTENERS) {
      if (!place.tls || hasTls(settings)) checks.push(await checkPort(settings, place, server.some(isRunning)))
    }
  }
  checks.push(...server)
  const ok = checks.every(({ state }) => state !== 'broken')
  const shown = explainSettings()
  createOutput(options.json ?? false).show({ ok, checks, settings: shown }, () =>
    [
      table(
        ['check', 'state', ''],
        checks.map(({ name, state, detail }) => [name, state, detail]),
      ),
      table(
        ['setting', 'value', 'given', 'meaning'],
        shown.map(({ name, value, given, meaning }) => [name, value, given ? 'yes' : 'default', meaning]),
      ),
    ].join('\n\n'),
  )
  if (!ok) throw new NotDoneError('something is broken: see above')
}

function checkNode(): Check {
  const major = Number(process.versions.node.split('.')[0])
  const needed = `${process.version}; ${OLDEST_NODE} or newer is needed`
  if (major < OLDEST_NODE) return { name: 'Node.js', state: 'broken', detail: needed }
  if (keepsKeys()) return { name: 'Node.js', state: 'ok', detail: needed }
  const fault =
    'its JSON.parse takes some keys with escapes for others, so a payload may be changed: take 24.22 or newer'
  return { name: 'Node.js', state: 'broken', detail: `${process.version}; ${fault}` }
}

/** V8 up to 13.6.233.17-node.53 (Node.js 24.21) compares a key, as it is written, with what followed the same keys before. */
function keepsKeys(): boolean {
  JSON.parse('{"doctor":0,"\\\\":0}')
  return Object.hasOwn(JSON.parse('{"doctor":0,"\\"":0}'), '"')
}

function checkPlatform(): Check {
  const name = `${platform()}-${arch()}`
  const known = ['linux-x64', 'linux-arm64'].includes(name)
  const detail = known ? name : `${name}: no embedded PostgreSQL here, so DATABASE_URL has to be set`
  return { name: 'platform', state: known ? 'ok' : 'note', detail }
}

function readSettings(checks: Check[]): Settings | undefined {
  try {
    const settings = parseSettings(rawEnvironment())
    checks.push({ name: 'settings', state: 'ok', detail: 'valid' })
    return settings
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    checks.push({ name: 'settings', state: 'broken', detail: error.message.replaceAll(/\n */g, ' ') })
    return undefined
  }
}

/** Every setting with what it is, secrets masked. */
function explainSettings() {
  const raw = rawEnvironment()
  const defaults = Settings.parse({}) as Record<string, unknown>
  return Object.entries(Settings.shape).map(([name, schema]) => {
    const given = raw[name] !== undefined && raw[name] !== ''
    const fallback = defaults[name] === undefined ? '' : String(defaults[name])
    return {
      name,
      value: given ? masked(name, raw[name] as string) : fallback || 'absent',
      default: fallback || null,
      given,
      meaning: schema.description ?? '',
    }
  })
}

function masked(name: string, value: string): string {
  if (/TOKEN|SECRET|PASSWORD|_KEY$/.test(name)) return '***'
  if (!URL.canParse(value)) return name.endsWith('_URL') ? '***' : value
  const url = new URL(value)
  if (url.password) url.password = '***'
  return url.href
}

async function checkDataDir({ DATA_DIR }: Settings): Promise<Check> {
  // It is made when it is needed: what must be there is the nearest folder above it.
  for (let folder = resolve(DATA_DIR); ; folder = dirname(folder)) {
    const fault = await access(folder, constants.W_OK).then(
      () => undefined,
      (error: NodeJS.ErrnoException) => error,
    )
    if (!fault) return { name: 'DATA_DIR', state: 'ok', detail: resolve(DATA_DIR) }
    if (fault.code !== 'ENOENT') return { name: 'DATA_DIR', state: 'broken', detail: fault.message }
  }
}

async function checkDatabase(settings: Settings): Promise<Check> {
  const name = 'PostgreSQL'
  try {
    const { version, shown } = await tryDatabase(settings)
    const state = version >= OLDEST_POSTGRES ? 'ok' : 'broken'
    const needed = state === 'ok' ? '' : `; ${OLDEST_POSTGRES} or newer is needed`
    return { name, state, detail: `${version}, ${shown === 'embedded' ? 'embedded, starts here' : shown}${needed}` }
  } catch (error) {
    return { name, state: 'broken', detail: reasonOf(error) }
  }
}

/** Only who names a Redis expects one. */
async function checkRedis(settings: Settings): Promise<Check[]> {
  const name = 'Redis'
  if (settings.REDIS_URL === undefined) return []
  try {
    return [{ name, state: 'ok', detail: await tryRedis(settings.REDIS_URL, settings) }]
  } catch (error) {
    return [{ name, state: 'broken', detail: reasonOf(error) }]
  }
}

const LISTENERS = [
  { host: 'HTTP_HOST', port: 'HTTP_PORT', tls: false },
  { host: 'MQTT_HOST', port: 'MQTT_PORT', tls: false },
  { host: 'MQTT_HOST', port: 'MQTT_WS_PORT', tls: false },
  { host: 'HTTP_HOST', port: 'HTTPS_PORT', tls: true },
  { host: 'MQTT_HOST', port: 'MQTT_TLS_PORT', tls: true },
  { host: 'MQTT_HOST', port: 'MQTT_WSS_PORT', tls: true },
] as const

async function checkPort(settings: Settings, place: (typeof LISTENERS)[number], running: boolean): Promise<Check> {
  const { port: setting } = place
  const [host, port] = [place.tls ? settings[place.host] : plainHost(settings, place.host), settings[setting]]
  const server = createServer()
  try {
    server.listen(port, host)
    await once(server, 'listening')
    return { name: setting, state: 'ok', detail: port === 0 ? 'any free port' : `${port} on ${host} is free` }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code !== 'EADDRINUSE') return { name: setting, state: 'broken', detail: message }
    if (running) return { name: setting, state: 'note', detail: `${port} on ${host} is taken; a server is running` }
    return {
      name: setting,
      state: 'broken',
      detail: `${port} on ${host} is taken: stop what uses it or set ${setting}`,
    }
  } finally {
    server.close()
  }
}

const isRunning = ({ name, state }: Check): boolean => name === 'server' && state === 'ok'

/** Only who names a server expects one to answer. */
async function checkServer(options: DoctorOptions): Promise<Check[]> {
  const name = 'server'
  const given = apiFromEnvironment()
  const url = (options.url ?? given.url).replace(/\/+$/, '')
  const token = options.token ?? given.token
  const expected = url !== DEFAULT_URL
  let health: Response
  try {
    health = await fetch(`${url}/health`, { signal: AbortSignal.timeout(HEALTH_TIMEOUT_MS) })
    await health.arrayBuffer()
  } catch {
    return [{ name, state: expected ? 'broken' : 'note', detail: `no server answers at ${url}` }]
  }
  if (!health.ok) return [{ name, state: 'broken', detail: `${url}/health answers ${health.status}` }]
  const checks: Check[] = [{ name, state: 'ok', detail: `${url} is healthy` }]
  if (token === undefined) return checks
  const fault = await connectApi({ url, token })('GET', '/commands?limit=1').then(
    () => undefined,
    (error: Error) => error.message,
  )
  checks.push({ name: 'token', state: fault ? 'broken' : 'ok', detail: fault ?? 'is valid' })
  return checks
}
