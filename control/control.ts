import type { Logger } from 'pino'
import type { Db } from '../db/connect.ts'
import { storeLastUse } from '../db/last-use.ts'
import { databaseIdentity } from '../db/nodes.ts'
import { checkTimeZone } from '../db/quotas.ts'
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
import { type CatchUp, createCatchUp } from './cluster/catch-up.ts'
import { followHints } from './cluster/follow-hints.ts'
import { createHints, type Tell } from './cluster/hints.ts'
import { countAlone, type Line, type SharedCounter } from './cluster/line.ts'
import { createNodes, type Nodes } from './cluster/nodes.ts'
import { createShownClients } from './cluster/shown-clients.ts'
import { createStatuses, type Statuses } from './cluster/statuses.ts'
import { createWatch, type Watch } from './commands/await-command.ts'
import { type CommandInserts, createCommandInserts } from './commands/command-inserts.ts'
import { createDatabaseClock } from './database-clock.ts'
import { createEnrolmentCodes, type EnrolmentCodes } from './enrolments/redeem-enrolment.ts'
import { createDispatch, type Dispatch } from './executions/dispatch.ts'
import { createLedger, type Ledger } from './executions/ledger.ts'
import { inFlight } from './executions/states.ts'
import { createSweeper } from './executions/sweeper.ts'
import { createMetrics, type Metrics } from './metrics/metrics.ts'
import { observeDatabase, observeLine, observeSessions } from './metrics/observed.ts'
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
  minuteCounter: SharedCounter
  actions: Actions
  watch: Watch
  uplink: Uplink
  httpSessions: HttpSessions
  transport: Transport
  nodes: Nodes
  statuses: Statuses
  /** Tells the other nodes, if there are any. */
  tell: Tell
  /** Undefined: nothing leads to other nodes but PostgreSQL. */
  line: Line | undefined
  commandInserts: CommandInserts
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
  /** The way to other nodes. */
  line?: Line | undefined
  passed?: Passed
  random?: () => number
}

export function createControl(deps: ControlDeps): Control {
  const { db, settings, log, transport, line } = deps
  const metrics = createMetrics({
    maxLabelValues: settings.METRICS_MAX_LABEL_VALUES,
    isRegistered: (action) => actions.isRegistered(action),
  })
  const nodes = createNodes({
    db,
    log,
    leaseSeconds: settings.NODE_LEASE_SECONDS,
    onDead: async () => {
      await sessions.endLost()
      await sweeper.settleOrphanedClaims()
    },
  })
  const hints = createHints({ node: nodes.id, line, log })
  const tell: Tell = hints.send
  const statuses = createStatuses({ transport, tell, hasLine: line !== undefined })
  const actions = createActions({ db, cacheSeconds: settings.CREDENTIAL_CACHE_SECONDS, tell })
  const hooks = deps.passed ? { passed: deps.passed } : {}
  const clock = createDatabaseClock()
  const ledger = createLedger({
    db,
    log,
    metrics,
    clock,
    backoff: { baseSeconds: settings.RETRY_BACKOFF_SECONDS, maxSeconds: settings.RETRY_BACKOFF_MAX_SECONDS },
    onDown(error) {
      log.warn({ reason: (error as Error).message }, 'the database does not answer; reports wait')
      commandInserts.recount()
    },
    ...(deps.random ? { random: deps.random } : {}),
  })
  const dispatch: Dispatch = createDispatch({
    db,
    log,
    ledger,
    transport,
    session: (clientId) => sessions.get(clientId),
    sessions: () => sessions.all(),
    tell,
    others: nodes.others,
    ...hooks,
  })
  const sessions: Sessions = createSessions({
    db,
    log,
    node: nodes.id,
    metrics,
    ledger,
    statuses,
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
    statuses,
    tell,
    uplink,
    pingTimeoutSeconds: settings.HTTP_PING_TIMEOUT_SECONDS,
  })
  const commandInserts: CommandInserts = createCommandInserts({
    db,
    settings,
    metrics,
    clock,
    dispatch,
    aloneSince: nodes.aloneSince,
    ...hooks,
  })
  const securityLog = createSecurityLog({
    db,
    log,
    metrics,
    subjectsPerMinute: settings.SECURITY_EVENT_SUBJECTS,
    backlog: settings.SECURITY_EVENT_BACKLOG,
  })
  const tokenUse = createLastUse({
    store: (ids, exactSeconds) => storeLastUse(db, 'tokens', ids, exactSeconds),
    exactSeconds: settings.TOKEN_LAST_USED_SECONDS,
    meter: metrics.batcher('token_use'),
  })
  const sessionUse = createLastUse({
    store: (ids, exactSeconds) => storeLastUse(db, 'console_sessions', ids, exactSeconds),
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
    leads: nodes.leads,
    catchUp: { isLate: () => catchUp.isLate(), pass: (rarely) => catchUp.pass(rarely) },
    intervalSeconds: settings.SWEEP_INTERVAL_SECONDS,
    sessionsPerPass: settings.SWEEP_SESSIONS,
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
    leads: nodes.leads,
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
    leads: nodes.leads,
    days: settings.RETENTION_DAYS,
    auditDays: settings.AUDIT_KEEP_DAYS,
    batch: settings.RETENTION_BATCH,
    intervalSeconds: settings.RETENTION_INTERVAL_SECONDS,
  })
  let stopMeasuring = (): void => undefined
  observeDatabase(metrics, db, log, settings.DATABASE_TIMEOUT_SECONDS)
  observeSessions(metrics, sessions, settings.METRICS_MAX_LABEL_VALUES)
  ledger.onChange(metrics.executionChanged)
  ledger.onReturn(commandInserts.recount)
  const writers = [commandInserts, sessions, uplink, ledger]
  // Work that has become claimable is news for the client's session; so is a place in the window, if anything waits for it.
  ledger.onChange(({ commandId, clientId }, before, after) => {
    if (isSettled(after.status) && !isSettled(before.status)) tell('settled', { commandId })
    if (after.status === 'pending' && before.status !== 'pending') commandInserts.requeued(clientId)
    const session = sessions.get(clientId)
    const freed = inFlight(before.status) && !inFlight(after.status)
    // A late word takes a place in the window that no claim has counted.
    const reopened = !inFlight(before.status) && inFlight(after.status) && after.status !== 'queued'
    if (session) session.room += freed ? 1 : reopened ? -1 : 0
    const claimable = !isSettled(after.status) && after.status === 'pending' && after.notBefore === null
    if (claimable || (freed && session?.drained !== true)) dispatch.wakeClient(clientId)
  })
  const shown = createShownClients({ db, metrics, authenticator, sessions, dispatch, transport, statuses })
  const catchUp: CatchUp = createCatchUp({
    db,
    sessions,
    dispatch,
    watch,
    shown,
    others: nodes.others,
    isTold: () => line?.up() ?? false,
  })
  if (line) observeLine(metrics, line)

  /** What others tell is heard before PostgreSQL is read, so that nothing falls between the two. */
  async function openLine(): Promise<void> {
    if (!line) return
    hints.handle(
      followHints({
        db,
        sessions,
        httpSessions,
        dispatch,
        watch,
        transport,
        statuses,
        shown,
        authenticator,
        logins,
        actions,
      }),
    )
    await line.open(await databaseIdentity(db), nodes.id, {
      message: hints.receive,
      up() {
        log.info('the line to other nodes is up')
        catchUp.missed()
      },
      down: (reason) => log.warn({ reason }, 'the line to other nodes is down: what they do is noticed later'),
    })
  }

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
    minuteCounter: line?.counter(MINUTE_SECONDS) ?? countAlone(MINUTE_SECONDS),
    actions,
    watch,
    uplink,
    httpSessions,
    transport,
    nodes,
    statuses,
    tell,
    line,
    commandInserts,
    metrics,
    ...hooks,
    deletedClients: () => deletedClients(db),
    async recover() {
      await checkTimeZone(db, settings.DAY_TIME_ZONE)
      await actions.load()
      await commandInserts.start()
      await nodes.join()
      await sessions.endLost()
      await openLine()
      await shown.retainAll()
      await sweeper.sweep()
    },
    start() {
      stopMeasuring = measureProcess(metrics)
      nodes.start()
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
      await line?.close()
      await nodes.stop()
    },
  }
}
