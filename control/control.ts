import type { Logger } from 'pino'
import { type RateLimiterAbstract, RateLimiterMemory } from 'rate-limiter-flexible'
import { listRetained } from '../db/clients.ts'
import type { Db } from '../db/connect.ts'
import { storeSessionUse } from '../db/console-sessions.ts'
import { checkTimeZone } from '../db/quotas.ts'
import { storeLastUse } from '../db/tokens.ts'
import { isSettled } from '../schemas/executions.ts'
import type { Settings } from '../schemas/settings.ts'
import { type Authenticator, createAuthenticator } from './access/authenticate.ts'
import { createLastUse } from './access/last-use.ts'
import { createLoginThrottle, type LoginThrottle } from './access/login-throttle.ts'
import { createLogins, type Logins } from './access/logins.ts'
import { MINUTE_SECONDS } from './access/minute-limits.ts'
import { createSecurityLog, type SecurityLog } from './access/security-log.ts'
import { type Actions, createActions } from './actions/actions.ts'
import { createAlertFollower } from './alerts/follower.ts'
import { createRefusals, type Refusals } from './alerts/refusals.ts'
import { deletedClients } from './clients/deleted-clients.ts'
import { createWatch, type Watch } from './commands/await-command.ts'
import { type CreateCommandDeps, createCommandInserts } from './commands/create-command.ts'
import { createEnrolmentCodes, type EnrolmentCodes } from './enrolments/redeem-enrolment.ts'
import { createDispatch, type Dispatch } from './executions/dispatch.ts'
import { createLedger, type Ledger } from './executions/ledger.ts'
import { inFlight } from './executions/states.ts'
import { createSweeper } from './executions/sweeper.ts'
import { createMetrics, type Metrics } from './metrics/metrics.ts'
import { observeDatabase, observeSessions } from './metrics/observed.ts'
import { measureProcess } from './metrics/process-metrics.ts'
import { createRetention } from './retention.ts'
import { createHttpSessions, type HttpSessions } from './sessions/http-sessions.ts'
import { createSessions, type Sessions } from './sessions/sessions.ts'
import type { Transport } from './transport.ts'
import { createUplink, type Uplink } from './uplink/uplink.ts'

/** Named points of a command's way where a test may end the process. */
export type Passed = (
  point: 'create-committed' | 'claim-committed' | 'forwarded' | 'report-received' | 'report-committed',
) => void

/** The domain, put together: what the doors (api, broker) call. */
export interface Control {
  db: Db
  settings: Settings
  ledger: Ledger
  dispatch: Dispatch
  sessions: Sessions
  authenticator: Authenticator
  refusals: Refusals
  securityLog: SecurityLog
  logins: Logins
  loginThrottle: LoginThrottle
  enrolmentCodes: EnrolmentCodes
  minuteCounter: RateLimiterAbstract
  actions: Actions
  watch: Watch
  uplink: Uplink
  httpSessions: HttpSessions
  transport: Transport
  commandInserts: CreateCommandDeps['commandInserts']
  metrics: Metrics
  passed?: Passed
  /** Every id that was deleted and not used again, a page at a time. */
  deletedClients(): AsyncIterable<string[]>
  /** Brings the world of before the start in order: dead sessions, retained topics. Call it before the doors open. */
  recover(): Promise<void>
  /** Starts what runs by the clock. */
  start(): void
  /** Whether what clients and callers say can be written: PostgreSQL may answer, and have no room. */
  writes(): boolean
  /** From here on nothing waits for a database that is down: the next start settles what could not be committed. */
  letGo(): void
  /** Ends what runs by the clock, then waits for what is on its way to PostgreSQL. */
  stop(): Promise<void>
}

export interface ControlDeps {
  db: Db
  settings: Settings
  log: Logger
  transport: Transport
  passed?: Passed
  random?: () => number
}

/** Without Redis there is one node, so every session in the table was this node's. */
const NODE = 'node'

export function createControl(deps: ControlDeps): Control {
  const { db, settings, log, transport } = deps
  const metrics = createMetrics({
    maxLabelValues: settings.METRICS_MAX_LABEL_VALUES,
    isRegistered: (action) => actions.isRegistered(action),
  })
  const actions = createActions({ db, cacheSeconds: settings.CREDENTIAL_CACHE_SECONDS })
  const hooks = deps.passed ? { passed: deps.passed } : {}
  const ledger = createLedger({
    db,
    log,
    metrics,
    backoff: { baseSeconds: settings.RETRY_BACKOFF_SECONDS, maxSeconds: settings.RETRY_BACKOFF_MAX_SECONDS },
    onDown: (error) => log.warn({ reason: (error as Error).message }, 'the database does not answer; reports wait'),
    ...(deps.random ? { random: deps.random } : {}),
  })
  const dispatch: Dispatch = createDispatch({
    db,
    log,
    ledger,
    transport,
    session: (clientId) => sessions.get(clientId),
    ...hooks,
  })
  const sessions: Sessions = createSessions({
    db,
    log,
    node: NODE,
    metrics,
    ledger,
    transport,
    dispatchIdle: (session) => dispatch.idle(session),
    endTimeoutSeconds: settings.DATABASE_TIMEOUT_SECONDS,
  })
  const watch = createWatch(ledger)
  const uplink = createUplink({ db, ledger, metrics, ...hooks })
  const httpSessions = createHttpSessions({
    db,
    log,
    ledger,
    sessions,
    dispatch,
    transport,
    uplink,
    pingTimeoutSeconds: settings.HTTP_PING_TIMEOUT_SECONDS,
  })
  const commandInserts = createCommandInserts(db, settings, metrics)
  const securityLog = createSecurityLog({
    db,
    log,
    metrics,
    subjectsPerMinute: settings.SECURITY_EVENT_SUBJECTS,
    backlog: settings.SECURITY_EVENT_BACKLOG,
  })
  const tokenUse = createLastUse({
    store: (ids, exactSeconds) => storeLastUse(db, ids, exactSeconds),
    exactSeconds: settings.TOKEN_LAST_USED_SECONDS,
    meter: metrics.batcher('token_use'),
  })
  const sessionUse = createLastUse({
    store: (ids, exactSeconds) => storeSessionUse(db, ids, exactSeconds),
    exactSeconds: Math.min(settings.TOKEN_LAST_USED_SECONDS, settings.SESSION_IDLE_SECONDS / 10),
    meter: metrics.batcher('session_use'),
  })
  const logins = createLogins({
    db,
    log,
    recheckSeconds: settings.CREDENTIAL_CACHE_SECONDS,
    sessionIdleSeconds: settings.SESSION_IDLE_SECONDS,
    endClientKey(clientId, keyHash, why) {
      transport.disconnect(clientId, why, keyHash)
      httpSessions.disconnect(clientId, why, keyHash)
    },
  })
  const sweeper = createSweeper({
    db,
    log,
    ledger,
    dispatch,
    sessions,
    transport,
    intervalSeconds: settings.SWEEP_INTERVAL_SECONDS,
    idempotencyKeySeconds: settings.IDEMPOTENCY_KEY_SECONDS,
    securityEventSeconds: settings.SECURITY_EVENT_KEEP_SECONDS,
    sessionIdleSeconds: settings.SESSION_IDLE_SECONDS,
  })
  const authenticator = createAuthenticator({
    db,
    securityLog,
    tokenUse,
    sessionUse,
    sessionIdleSeconds: settings.SESSION_IDLE_SECONDS,
    cacheSeconds: settings.CREDENTIAL_CACHE_SECONDS,
    metrics,
  })
  const refusals = createRefusals({ isClient: authenticator.clientExists, max: settings.ALERT_MAX_REFUSED_CLIENTS })
  const alerts = createAlertFollower({
    db,
    log,
    sessions,
    refusals,
    intervalSeconds: settings.SWEEP_INTERVAL_SECONDS,
    clientLostSeconds: settings.ALERT_CLIENT_LOST_SECONDS,
    securityQuietSeconds: settings.ALERT_SECURITY_QUIET_SECONDS,
    feedLagSeconds: settings.ALERT_FEED_LAG_SECONDS,
  })
  const retention = createRetention({
    db,
    log,
    metrics,
    days: settings.RETENTION_DAYS,
    auditDays: settings.AUDIT_KEEP_DAYS,
    batch: settings.RETENTION_BATCH,
    intervalSeconds: settings.RETENTION_INTERVAL_SECONDS,
  })
  let stopMeasuring = (): void => undefined
  observeDatabase(metrics, db, log, settings.DATABASE_TIMEOUT_SECONDS)
  observeSessions(metrics, sessions, settings.METRICS_MAX_LABEL_VALUES)
  ledger.onChange(metrics.executionChanged)
  const writers = [commandInserts, sessions, uplink, ledger]
  // Work that has become claimable is news for the client's session; so is a place in the window, if anything waits for it.
  ledger.onChange(({ clientId }, before, after) => {
    const freed = inFlight(before.status) && !inFlight(after.status)
    const claimable = !isSettled(after.status) && after.status === 'pending' && after.notBefore === null
    const session = sessions.get(clientId)
    if (claimable || (freed && session?.drained === false)) dispatch.wake(session)
  })

  return {
    db,
    settings,
    ledger,
    dispatch,
    sessions,
    authenticator,
    refusals,
    securityLog,
    logins,
    loginThrottle: createLoginThrottle(settings.HTTP_LOGIN_FAILURES_PER_MINUTE),
    enrolmentCodes: createEnrolmentCodes(db, metrics),
    // The library decides only what a minute is: each grant has a limit of its own.
    minuteCounter: new RateLimiterMemory({ points: Number.MAX_SAFE_INTEGER, duration: MINUTE_SECONDS }),
    actions,
    watch,
    uplink,
    httpSessions,
    transport,
    commandInserts,
    metrics,
    ...hooks,
    deletedClients: () => deletedClients(db),
    async recover() {
      await checkTimeZone(db, settings.DAY_TIME_ZONE)
      await actions.load()
      await commandInserts.start()
      await sessions.endLost()
      await retainAll(db, transport)
      await sweeper.sweep()
    },
    start() {
      stopMeasuring = measureProcess(metrics)
      sweeper.start()
      alerts.start()
      retention.start()
      httpSessions.start()
      logins.start()
    },
    writes: () => !writers.some((part) => part.failing()),
    letGo() {
      for (const part of writers) void part.stop()
    },
    async stop() {
      stopMeasuring()
      await httpSessions.stop()
      await logins.stop()
      await sweeper.stop()
      await alerts.stop()
      await retention.stop()
      await commandInserts.stop()
      await sessions.stop()
      await uplink.stop()
      await ledger.stop()
      await tokenUse.stop()
      await sessionUse.stop()
      await securityLog.stop()
    },
  }
}

const PAGE = 1000

async function retainAll(db: Db, transport: Transport): Promise<void> {
  for (let after = ''; ; ) {
    const clients = await listRetained(db, after, PAGE)
    for (const client of clients) {
      await transport.retainPresence(
        client.id,
        client.online ? { state: 'online' } : { state: 'offline', since: client.presenceSince },
      )
      await transport.retainConfig(client.id, client.config)
    }
    if (clients.length < PAGE) return
    after = (clients.at(-1) as { id: string }).id
  }
}
