import { expect } from 'vitest'
import { enter, own, register } from '../../broker/support/scene.ts'
import { connectDevice, ROOT } from '../../support/device.ts'
import { ADMIN_TOKEN, startServer, type TestServer } from '../../support/server.ts'
import { until } from '../../support/until.ts'
import { type Credentials, type KindName, makeLogins } from './logins.ts'

/** A server with somebody to be harmed, somebody who watches, and one attacker of each kind. */
export interface Scene {
  server: TestServer
  logins: Record<KindName, Credentials>
  /** A command that the victim has started and not finished; one of its offline neighbour waits. */
  running: string
  /** Runs the attack, and proves that it changed nothing; what attackers may cause themselves is left out. */
  harmless(attack: () => Promise<unknown>): Promise<void>
  /** The same without the broker: nothing is stored, whoever asked. */
  unchanged(attack: () => Promise<unknown>): Promise<void>
  /** Something may be stored, and nothing of the victims. */
  spared(attack: () => Promise<unknown>): Promise<void>
  /** The server is well: called at the end of each file. */
  stop(): Promise<void>
}

/** Who the attackers are; their own comings and goings are no harm. */
const ATTACKERS = `('attacker', 'graced', 'rotated', 'switched-off', 'gone')`

/** Everything that the ledger, the audit and the registers know, in a few letters each. Alerts about the attackers are wanted. */
const tables = (orders: Record<string, string>): string =>
  Object.entries(orders)
    .map(
      ([name, query]) =>
        `(select md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from (${query}) t) as ${name}`,
    )
    .join(', ')
const STATE = `select ${tables({
  commands: 'select * from commands',
  executions: 'select * from executions',
  events: `select * from events where type not like 'alert.%' and not (type in ('client.online', 'client.offline') and client_id in ${ATTACKERS})`,
  audit: 'select * from audit',
  clients:
    'select id, name, key_hash, disabled, max_in_flight, metadata, reported, deleted_at, previous_key_hash from clients',
  sessions: `select id, session_epoch, session_node, presence_since from clients where id not in ${ATTACKERS}`,
  zones: 'select * from zone_members',
  actions: 'select * from actions',
  principals: 'select * from principals',
  tokens: 'select id, principal_id, name, token_hash, expires_at, revoked_at from tokens',
  enrolments: 'select * from enrolments',
  browsers: 'select id, token_id, secret_hash, expires_at from console_sessions',
  quotas: 'select * from grant_usage where refused >= 0',
  idempotency: 'select * from idempotency_keys',
})}`

const OF_VICTIMS = `client_id in ('victim', 'neighbour')`
const VICTIMS = `select ${tables({
  clients: `select id, name, key_hash, disabled, metadata, reported, deleted_at, session_epoch from clients where id in ('victim', 'neighbour')`,
  executions: `select * from executions where ${OF_VICTIMS}`,
  events: `select * from events where ${OF_VICTIMS} and type not like 'alert.%'`,
  zones: `select * from zone_members where ${OF_VICTIMS}`,
  principals: `select * from principals where name like 'the-%' or name = 'admin'`,
})}`

export async function startScene(): Promise<Scene> {
  const server = await startServer({
    HTTP_LOGIN_FAILURES_PER_MINUTE: 1_000_000,
    MQTT_LOGIN_FAILURES_PER_MINUTE: 1_000_000,
    LOG_LEVEL: 'info',
    CREDENTIAL_CACHE_SECONDS: 600,
    // They are silent while others are at work.
    MQTT_KEEPALIVE_MAX: 65_535,
  })
  const logins = await makeLogins(server)
  const key = await register(server, 'victim', { zones: ['A'] })
  await register(server, 'neighbour', { zones: ['A'] })
  const victim = await enter(server, 'victim', key, { journalId: 'victims-journal', keepalive: 0 })
  const reports = await connectDevice(server, {
    clientId: 'victim~reports',
    username: 'victim',
    password: key,
    keepalive: 0,
  })
  expect(await victim.subscribe([`${ROOT}/zones/A/commands`, `${ROOT}/broadcast/commands`])).toEqual([1, 1])
  const send = async (clientId: string): Promise<string> => {
    const { body } = await server.api.post('/commands', { clientId, action: 'work', ttlSeconds: 3600 })
    return body.id
  }
  const running = await send('victim')
  victim.ack((await victim.nextCommand()).messageId)
  await victim.report(running, { status: 'running', attempt: 1 })
  await send('neighbour')
  const watcher = await connectDevice(server, {
    clientId: 'watcher',
    username: 'admin',
    password: ADMIN_TOKEN,
    keepalive: 0,
  })
  let marks = 0

  /** What is retained below the root now, and what came by since the last look, whoever published it: without presence of attackers. */
  async function look(retainedBefore: number): Promise<{ retained: string[]; passed: string[] }> {
    const from = watcher.packets.length
    expect(await watcher.subscribe(`${ROOT}/#`)).toEqual([1])
    const mark = `mark-${++marks}`
    await reports.publish(own('victim', 'events/mark'), { id: mark })
    const seen = () =>
      watcher.packets
        .slice(taken)
        .flatMap((one) => (one.cmd === 'publish' ? [{ ...one, payload: String(one.payload) }] : []))
    await until(() => seen().some(({ payload }) => payload.includes(`"${mark}"`)), mark)
    const retained = () =>
      watcher.packets
        .slice(from)
        .flatMap((one) => (one.cmd === 'publish' && one.retain ? [`${one.topic} ${one.payload}`] : []))
        .filter(isOfOthers)
    // What is retained comes by itself; whatever was added to it has passed by as well.
    await until(() => retained().length >= retainedBefore, 'what is retained')
    for (const one of watcher.packets.slice(taken)) {
      if (one.cmd === 'publish' && one.qos === 1) watcher.ack(one.messageId as number)
    }
    const all = seen()
    const kept = retained()
    taken = watcher.packets.length
    const passed = all
      .filter(({ payload, retain }) => !retain && !payload.includes('"mark-'))
      .map(({ topic, payload }) => `${topic} ${payload}`)
    return { retained: kept.sort(), passed: passed.filter(isOfOthers) }
  }
  let taken = 0

  const read = async (query: string): Promise<object> => (await server.sql(query))[0] as object
  const keeps = (query: string) => async (attack: () => Promise<unknown>) => {
    const before = await read(query)
    await attack()
    expect(await read(query)).toEqual(before)
  }
  const unchanged = keeps(STATE)
  // A client has two: its presence and its config.
  const RETAINED = 4
  await look(RETAINED)

  return {
    server,
    logins,
    running,
    async harmless(attack) {
      const { retained } = await look(RETAINED)
      const received = victim.packets.length
      await unchanged(attack)
      expect(await look(RETAINED)).toEqual({ retained, passed: [] })
      expect(victim.packets.length).toBe(received)
      expect([victim.closed, reports.closed, watcher.closed]).toEqual([false, false, false])
    },
    unchanged,
    spared: keeps(VICTIMS),
    async stop() {
      await victim.ping()
      const { status, body } = await server.api.get(`/commands/${running}`)
      expect({ status, outcome: body.status }).toEqual({ status: 200, outcome: 'running' })
      await victim.report(running, { status: 'completed', attempt: 1 })
      expect((await server.api.get(`/commands/${running}`)).body.status).toBe('completed')
      expect((await server.api.get('/health')).body).toMatchObject({ ok: true })
      expect(server.logs.filter(({ level }) => (level as number) >= 50)).toEqual([])
      await server.stop()
    },
  }
}

/** The presence of attackers who logged in as themselves, and what they are told, is theirs. */
const isOfOthers = (message: string): boolean =>
  !/^signalbox\/v1\/clients\/(attacker|graced|rotated|switched-off|gone)\/(status \{"state":"o|config |replies )/.test(
    message,
  )
