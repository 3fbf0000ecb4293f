import { z } from 'zod'

const port = (fallback: number) => z.coerce.number().int().min(0).max(65_535).default(fallback)
const count = (fallback: number, min = 1, max = 1_000_000_000) =>
  z.coerce.number().int().min(min).max(max).default(fallback)
const seconds = (fallback: number) => z.coerce.number().positive().max(1_000_000_000).default(fallback)
const text = z.string().min(1)
/** Exact ones: a scheme, a host, perhaps a port. */
const origins = z
  .string()
  .transform((list) => list.split(',').map((origin) => origin.trim()))
  .pipe(z.array(z.string().refine(isOrigin, { message: 'must be origins like https://app.example.com' })))
/** An IANA name: offsets are left out, since PostgreSQL reads the sign of `+09:00` the other way round. */
const timeZone = z.string().refine((name) => /^[A-Za-z]/.test(name) && isTimeZone(name), {
  message: 'must be an IANA time zone, like Europe/Berlin',
})

function isOrigin(text: string): boolean {
  return /^https?:\/\/[^*]+$/.test(text) && URL.canParse(text) && new URL(text).origin === text
}

function isTimeZone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }) !== undefined
  } catch {
    return false
  }
}

/** Every setting: its variable, default and meaning. Read once, validated, every fault reported together. */
export const Settings = z.object({
  DATABASE_URL: text.optional().describe('PostgreSQL 15 or newer; absent: embedded PostgreSQL in DATA_DIR/postgres'),
  REDIS_URL: z
    .string()
    .regex(/^(rediss?:\/\/|\/)/, 'must begin with redis:// or rediss://, or be the path of a socket')
    .optional()
    .describe(
      'Redis 6 or newer; with it, servers with the same database tell each other at once what they do. Absent: they notice it in PostgreSQL, every SWEEP_INTERVAL_SECONDS',
    ),
  REDIS_TIMEOUT_SECONDS: seconds(1).describe('no answer for this long from Redis counts as down'),
  NODE_LEASE_SECONDS: seconds(15).describe(
    'a server that PostgreSQL has not heard of for this long is gone: another one ends its sessions',
  ),
  DATA_DIR: text.default('.data').describe('embedded database'),
  HTTP_HOST: text.default('127.0.0.1').describe('address of the HTTP listener'),
  HTTP_PORT: port(3000).describe('port of the HTTP listener; 0 takes any free one'),
  MQTT_HOST: text.default('127.0.0.1').describe('address of the MQTT listeners'),
  MQTT_PORT: port(1883).describe('MQTT over TCP; 0 takes any free port'),
  MQTT_WS_PORT: port(8083).describe('MQTT over WebSocket, path /mqtt; 0 takes any free port'),
  TLS_CERT_FILE: text
    .optional()
    .describe(
      'certificate chain, PEM; with TLS_KEY_FILE: TLS listeners on the hosts above, the plain ones on loopback only',
    ),
  TLS_KEY_FILE: text.optional().describe('private key of the certificate, PEM'),
  TLS_RELOAD_SECONDS: seconds(60).describe('how often both files are looked at; a new pair is used by new connections'),
  HTTPS_PORT: port(3443).describe('port of the HTTPS listener; 0 takes any free one'),
  MQTT_TLS_PORT: port(8883).describe('MQTT over TLS; 0 takes any free port'),
  MQTT_WSS_PORT: port(8084).describe('MQTT over WebSocket over TLS, path /mqtt; 0 takes any free port'),
  MQTT_TOPIC_ROOT: z
    .string()
    .regex(/^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/, 'must be topic levels of letters, digits, ".", "_", "-"')
    .default('signalbox/v1')
    .describe('prefix of every topic'),
  ADMIN_TOKEN: z
    .string()
    .regex(/^sbt_[A-Za-z0-9_-]{20,}$/, 'must be sbt_ and at least 20 letters, digits, "_" or "-"')
    .optional()
    .describe('token of the bootstrap administrator; absent: generated at the first start and printed once'),
  ALLOW_INSECURE: z.stringbool().default(false).describe('allow plain listeners beyond loopback'),
  LOG_LEVEL: z
    .enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'])
    .default('info')
    .describe('pino level'),
  LOG_LINES_PER_MINUTE: count(60).describe(
    'log lines of one kind about one client or address; the next one says how many were left out',
  ),

  DATABASE_POOL: count(10, 4, 1000).describe('PostgreSQL connections of this node'),
  DATABASE_TIMEOUT_SECONDS: seconds(5).describe('no answer for this long from PostgreSQL counts as down'),
  DEFAULT_TTL_SECONDS: count(604_800).describe('time to live of a command that names none'),
  DEFAULT_START_TIMEOUT_SECONDS: count(3600).describe(
    'from the first claim of an attempt until the client says it started',
  ),
  DEFAULT_TIMEOUT_SECONDS: count(3600).describe('from running until the outcome'),
  DEFAULT_MAX_RETRIES: count(3, 0, 100).describe('further attempts of an at_least_once command'),
  RETRY_BACKOFF_SECONDS: seconds(5).describe(
    'upper bound of the wait before the second attempt; doubles with each further one',
  ),
  RETRY_BACKOFF_MAX_SECONDS: seconds(900).describe('upper bound of the wait before any attempt'),
  DEFAULT_MAX_IN_FLIGHT: count(8, 1, 1000).describe(
    'executions of one client that are queued, delivered or running at once',
  ),
  MAX_PENDING_PER_CLIENT: count(1000).describe(
    'pending executions of one client; more are refused with QUEUE_FULL, priority 10 excepted',
  ),
  PUBACK_TIMEOUT_SECONDS: seconds(30).describe(
    'a client that leaves a message unacknowledged for this long is disconnected',
  ),
  SWEEP_INTERVAL_SECONDS: seconds(1).describe(
    'how often expiries, timeouts, work that the fast path missed and reasons for alerts are looked for',
  ),
  SWEEP_SESSIONS: count(1000).describe(
    'sessions whose missed work is looked for at once, in turn; all of them while nodes cannot tell each other',
  ),
  ALERT_CLIENT_LOST_SECONDS: seconds(60).describe('offline for longer than this while work waits: an alert'),
  ALERT_SECURITY_QUIET_SECONDS: seconds(3600).describe(
    'an alert of a security event that somebody has acknowledged ends when it was not noticed again for this long',
  ),
  ALERT_FEED_LAG_SECONDS: seconds(10).describe(
    'event feed held back for longer than this: an alert, and /health says degraded',
  ),
  ALERT_MAX_REFUSED_CLIENTS: count(10_000).describe(
    'refused clients that are remembered until the next look for alerts; refusals of further ones are not counted',
  ),
  IDEMPOTENCY_KEY_SECONDS: count(86_400).describe('how long an Idempotency-Key is remembered'),
  RETENTION_DAYS: count(90, 0, 36_500).describe(
    'commands that ended longer ago are removed with their history, and so are resolved alerts and events of no command; 0 keeps all of it',
  ),
  RETENTION_BATCH: count(500, 1, 100_000).describe(
    'executions that one transaction removes at most, or alerts, or audit rows; the executions of one command are not divided',
  ),
  AUDIT_KEEP_DAYS: count(0, 0, 36_500).describe('audit rows that are older are removed; 0 keeps them for good'),
  RETENTION_INTERVAL_SECONDS: seconds(60).describe('how often what has become old is looked for'),
  MAX_PAYLOAD_BYTES: count(262_144).describe(
    'largest payload of a command or an MQTT message, as JSON in UTF-8; a packet may be larger by its topic',
  ),
  HTTP_MAX_BODY_BYTES: count(1_048_576).describe('largest body of an HTTP request'),
  HTTP_MAX_LOGIN_BODY_BYTES: count(4096, 256).describe(
    'largest body of a request that asks for no login, such as a login',
  ),
  HTTP_WAIT_MAX_SECONDS: count(60).describe('longest ?wait='),
  HTTP_PING_TIMEOUT_SECONDS: seconds(30).describe('an HTTP client that has not pinged for this long is shown offline'),
  HTTP_REQUEST_TIMEOUT_SECONDS: seconds(30).describe('a request must have arrived completely by then'),
  HTTP_HEADERS_TIMEOUT_SECONDS: seconds(10).describe('its headers must have arrived by then'),
  HTTP_KEEP_ALIVE_SECONDS: seconds(65).describe(
    'how long a connection stays open for another request; longer than a proxy in front keeps it',
  ),
  HTTP_STALLED_SECONDS: seconds(60).describe(
    'a reader that takes nothing of its answer for this long, after HTTP_WAIT_MAX_SECONDS, is disconnected',
  ),
  HTTP_MAX_HEADER_BYTES: count(16_384, 1024, 1_048_576).describe('largest head of a request: its line and its headers'),
  HTTP_MAX_CONNECTIONS: count(20_000).describe('HTTP connections at once, of each listener; more are closed'),
  HTTP_MAX_UNAUTHENTICATED_PER_ADDRESS: count(5000).describe(
    'HTTP connections of one address without a successful login so far; more are closed',
  ),
  HTTP_MAX_PIPELINED: count(5).describe(
    'unanswered requests of one connection, which are answered one after the other; with more it is closed',
  ),
  HTTP_MAX_REQUESTS_PER_CONNECTION: count(0, 0).describe('requests of one connection, then it is closed; 0: no limit'),
  HTTP_TLS_PROXY: z
    .stringbool()
    .default(false)
    .describe('a proxy in front speaks TLS to callers: cookies are Secure and answers say Strict-Transport-Security'),
  HTTP_HSTS_SECONDS: count(31_536_000, 0).describe('max-age of Strict-Transport-Security, over TLS only; 0: none'),
  HTTP_ALLOWED_ORIGINS: origins
    .default([])
    .describe(
      'origins whose pages may call the API with a token (CORS), comma-separated, as in https://app.example.com; absent: none',
    ),
  SESSION_IDLE_SECONDS: seconds(3600).describe('a console session without a request for this long ends'),
  SESSION_MAX_SECONDS: seconds(43_200).describe('a console session ends after this long, whatever is done with it'),
  SESSION_MAX_OPEN: count(50, 1, 10_000).describe('console sessions of one token; with another one the oldest ends'),
  HTTP_HEARTBEAT_SECONDS: seconds(15).describe(
    'a stream on which nothing happens gets a comment this often, so that nobody in between takes it for dead',
  ),
  SHUTDOWN_SECONDS: seconds(10).describe('open requests get this long to end at shutdown'),
  MQTT_KEEPALIVE_MAX: count(120, 1, 65_535).describe('seconds; keepalive 0 or above this is supervised at this limit'),
  MQTT_CONNECT_TIMEOUT_SECONDS: seconds(5).describe('a connection must send its CONNECT within this time'),
  MQTT_FRAME_TIMEOUT_SECONDS: seconds(5).describe('a packet must be complete within this time after its first byte'),
  MQTT_SLOW_READER_SECONDS: seconds(5).describe('a reader that stays blocked for this long is disconnected'),
  MQTT_MAX_CONNECT_BYTES: count(4096, 64, 65_536).describe('largest CONNECT packet'),
  MQTT_MAX_TOPIC_BYTES: count(1024, 16, 65_535).describe('longest topic name or filter'),
  MQTT_MAX_TOPIC_LEVELS: count(32, 8, 100).describe('most levels of a topic name or filter'),
  MQTT_MAX_SUBSCRIPTIONS: count(1000, 4, 100_000).describe(
    'subscriptions of one connection, and filters of one SUBSCRIBE; more are refused',
  ),
  MQTT_MAX_UNACKNOWLEDGED: count(5000, 1, 65_535).describe(
    'messages of one client without a PUBACK; no more are sent to it until it acknowledges some',
  ),
  MQTT_PACKETS_PER_SECOND: count(1000).describe(
    'packets of one connection per second, after MQTT_PACKET_BURST at once; above that it is read more slowly, not disconnected',
  ),
  MQTT_PACKET_BURST: count(5000).describe('packets that one connection may send at once'),
  MQTT_MAX_CONNECTIONS: count(50_000).describe('MQTT sockets at once, whatever their state; more are closed'),
  MQTT_MAX_UNAUTHENTICATED_PER_ADDRESS: count(250).describe(
    'sockets of one address that are read from before their login is through; more wait unread for their turn. Logged-in ones do not count',
  ),
  MQTT_MAX_WAITING_PER_ADDRESS: count(20_000, 0).describe(
    'sockets of one address that wait for their turn; more are closed',
  ),
  MQTT_ADMISSION_SECONDS: seconds(30).describe('a socket that has waited this long for its turn is closed'),
  MQTT_LOGIN_FAILURES_PER_MINUTE: count(30).describe(
    'failed logins of one address, or of one name, that are answered at once; further ones are answered late. A right key always gets in',
  ),
  MQTT_FAILED_LOGIN_DELAY_SECONDS: seconds(2).describe('how late'),
  MAX_HELD_REPORTS: count(16, 1, 1000).describe(
    'messages of one connection that wait for their commit before its socket is paused',
  ),
  METRICS_LOGIN: z.stringbool().default(false).describe('/metrics asks for an API token, of any role'),
  METRICS_MAX_LABEL_VALUES: count(200, 1, 10_000).describe(
    'actions and zones that /metrics names; what is beyond is counted as (other)',
  ),
  CREDENTIAL_CACHE_SECONDS: seconds(10).describe('how long a verified or refused credential is remembered'),
  DAY_TIME_ZONE: timeZone.default('UTC').describe('IANA time zone in which the day of maxCommandsPerDay begins'),
  HTTP_LOGIN_FAILURES_PER_MINUTE: count(60).describe(
    'requests with a wrong key, token or enrolment code per address; more are answered 429, a right one is always let in',
  ),
  ENROLMENT_TTL_SECONDS: count(86_400, 1, 31_536_000).describe('time to live of an enrolment code that names none'),
  TOKEN_LAST_USED_SECONDS: seconds(60).describe('how exactly the last use of a token is kept'),
  SECURITY_EVENT_SUBJECTS: count(100, 1, 10_000).describe(
    'subjects of one kind of security event that are told apart per minute; more are counted together',
  ),
  SECURITY_EVENT_BACKLOG: count(1000).describe(
    'security events that wait in memory while the database is down; more are dropped and counted',
  ),
  SECURITY_EVENT_KEEP_SECONDS: count(7_776_000).describe('how long security events are kept'),
})
export type Settings = z.infer<typeof Settings>

export class SettingsError extends Error {
  constructor(faults: string[]) {
    super(`settings are not valid:\n${faults.map((fault) => `  ${fault}`).join('\n')}`)
    this.name = 'SettingsError'
  }
}

const LOOPBACK = /^(127\.\d+\.\d+\.\d+|::1|localhost)$/

/** Parses raw variables (the environment, or a test's overrides). Throws SettingsError with every fault at once. */
export function parseSettings(raw: Record<string, unknown>): Settings {
  const known = Object.keys(Settings.shape)
  const given = Object.fromEntries(
    known.filter((key) => raw[key] !== undefined && raw[key] !== '').map((key) => [key, raw[key]]),
  )
  const parsed = Settings.safeParse(given)
  const faults = [
    ...(parsed.error?.issues ?? []).map((issue) => `${issue.path.join('.')}: ${issue.message}`),
    ...exposureFaults(given),
    ...certificateFaults(given),
    ...retentionFaults(given),
  ]
  if (!parsed.success || faults.length > 0) throw new SettingsError(faults)
  return parsed.data
}

/** Judged on its own, so that it is reported together with faults of other settings. */
function exposureFaults(given: Record<string, unknown>): string[] {
  const parsed = Settings.pick({ HTTP_HOST: true, MQTT_HOST: true, ALLOW_INSECURE: true }).safeParse(given)
  if (!parsed.success || parsed.data.ALLOW_INSECURE) return []
  const reason = hasTls(given)
    ? given.DATABASE_URL === undefined && 'with the embedded database'
    : 'without TLS_CERT_FILE and TLS_KEY_FILE'
  if (!reason) return []
  const hosts = { HTTP_HOST: parsed.data.HTTP_HOST, MQTT_HOST: parsed.data.MQTT_HOST }
  return Object.entries(hosts)
    .filter(([, host]) => !LOOPBACK.test(host))
    .map(([key, host]) => `${key}: ${host} is beyond loopback; ${reason} that needs ALLOW_INSECURE=true`)
}

function certificateFaults(given: Record<string, unknown>): string[] {
  if ((given.TLS_CERT_FILE === undefined) === (given.TLS_KEY_FILE === undefined)) return []
  return ['TLS_CERT_FILE, TLS_KEY_FILE: give both or none']
}

export const hasTls = (given: { TLS_CERT_FILE?: unknown; TLS_KEY_FILE?: unknown }): boolean =>
  given.TLS_CERT_FILE !== undefined && given.TLS_KEY_FILE !== undefined

/** Where plain listeners bind: beside TLS ones on loopback only. */
export const plainHost = (settings: Settings, host: 'HTTP_HOST' | 'MQTT_HOST'): string =>
  hasTls(settings) ? '127.0.0.1' : settings[host]

/** The repetition of a key must find its command. */
function retentionFaults(given: Record<string, unknown>): string[] {
  const parsed = Settings.pick({ RETENTION_DAYS: true, IDEMPOTENCY_KEY_SECONDS: true }).safeParse(given)
  if (!parsed.success || parsed.data.RETENTION_DAYS === 0) return []
  const { RETENTION_DAYS: days, IDEMPOTENCY_KEY_SECONDS: seconds } = parsed.data
  return days * 86_400 < seconds ? [`RETENTION_DAYS: ${days} days are shorter than IDEMPOTENCY_KEY_SECONDS`] : []
}
