import { uptime } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { until } from '../../support/until.ts'
import type { HostOrders } from '../agent-host.ts'
import { type AgentHost, startAgents } from '../agents.ts'
import { create } from '../create.ts'
import { judgeStand } from '../evidence.ts'
import { type FaultyNetwork, openFaultyNetwork } from '../faulty-network.ts'
import { registerActions } from '../fleet.ts'
import type { Accepted } from '../load.ts'
import { createLuck } from '../luck.ts'
import type { Evidence } from '../oracle.ts'
import { scenario, Violations } from '../scenario.ts'
import { createStand, type Stand } from '../stand.ts'
import { untilItHappens, type Work } from '../work.ts'

const BRIEF: Work = { thinkMs: 0, fails: false }
/** Handlers that an agent runs at once: while they are busy, the rest waits in its journal. */
const CONCURRENCY = 2
/** Within this long all are sent, also beside another scenario: the handlers stay busy until the last of them has expired. */
const SENDING_MS = 10_000

interface Scene {
  stand: Stand
  clientId: string
  network: FaultyNetwork
  accepted: Accepted[]
  sizes: { queued: number; ttlSeconds: number }
  start(): Promise<AgentHost>
  online(state: boolean): Promise<void>
}

/** Where the hundred are when the device goes away, and what is said of each of them when it is back. */
interface Form {
  name: string
  says: { status: string; code: string | null; events: string[] }
  /** Answers the commands that expired. */
  run(scene: Scene): Promise<Accepted[]>
}

const FORMS: Form[] = [
  {
    name: 'pending-on-the-server',
    says: { status: 'expired', code: null, events: ['command.created', 'execution.expired'] },
    async run(scene) {
      await (await scene.start()).kill()
      await scene.online(false)
      const queued = await sendAll(scene)
      await untilIn(scene, queued, ['expired'])
      await scene.start()
      return queued
    },
  },
  {
    name: 'accepted-and-killed',
    says: {
      status: 'expired',
      code: null,
      events: ['command.created', 'execution.queued', 'execution.delivered', 'execution.expired'],
    },
    async run(scene) {
      const host = await scene.start()
      await occupy(scene, 60_000)
      const queued = await sendAll(scene)
      await untilIn(scene, queued, ['delivered', 'expired'])
      await host.kill()
      await untilTooLate(scene)
      await scene.start()
      return queued
    },
  },
  {
    name: 'accepted-and-cut-off',
    says: {
      status: 'expired',
      code: null,
      events: ['command.created', 'execution.queued', 'execution.delivered', 'execution.expired'],
    },
    async run(scene) {
      await scene.start()
      await occupy(scene, scene.sizes.ttlSeconds * 1000 + SENDING_MS)
      const queued = await sendAll(scene)
      await untilIn(scene, queued, ['delivered', 'expired'])
      scene.network.shut()
      scene.network.cut(1, createLuck(1))
      await untilGivenUp(scene, queued)
      scene.network.mend()
      return queued
    },
  },
  {
    name: 'sent-and-never-arrived',
    says: {
      status: 'cancelled',
      code: 'EXPIRED',
      events: ['command.created', 'execution.queued', 'execution.cancelled'],
    },
    async run(scene) {
      await scene.start()
      await works(scene)
      scene.network.swallow(1, createLuck(1), ['down'])
      scene.network.shut()
      const queued = await sendAll(scene)
      await untilIn(scene, queued, ['queued'])
      await untilExpired(scene, queued)
      scene.network.mend()
      scene.network.reset()
      return queued
    },
  },
]

export const expiredQueue = scenario({
  name: 'expired-queue',
  proves:
    'A device comes back after all that was queued for it has expired, wherever it waited: none of it runs, and each says why.',
  sizes: {
    short: { queued: 100, ttlSeconds: 8, rounds: 1 },
    long: { queued: 1000, ttlSeconds: 60, rounds: 5 },
  },
  async run(sizes, { say }) {
    await using stand = await createStand({ settings: { PUBACK_TIMEOUT_SECONDS: 120, MAX_PENDING_PER_CLIENT: 2000 } })
    await stand.startServer()
    await registerActions(stand)
    const accepted: Accepted[] = []
    const forms = Array.from({ length: sizes.rounds }, (_, round) => FORMS.map((form) => ({ form, round }))).flat()
    const seen = await Promise.all(
      forms.map(async ({ form, round }) => {
        const scene = await setScene(stand, `${form.name}-${round + 1}`, sizes, accepted)
        const expired = await form.run(scene)
        const ids = expired.map(({ id }) => id)
        await untilIn(scene, expired, ['expired', 'cancelled', 'failed', 'outcome_unknown'])
        // What comes after them runs as ever.
        await works(scene)
        return { form, clientId: scene.clientId, ids }
      }),
    )
    await stand.settled()
    const judged = await judgeStand(stand, {
      load: { accepted },
      devices: { plain: new Set(), lostMemory: new Set(), agentsWereKilled: true },
      also: function* (evidence) {
        for (const { form, ids } of seen) yield* [...notAsItShould(form, ids, evidence)].slice(0, 5)
      },
    })
    const wrong: string[] = []
    for (const { form, clientId, ids } of seen) {
      for (const id of ids.slice(0, 3)) wrong.push(...(await whatTheApiSays(stand, form, id)))
      say(`${clientId}: ${ids.length} ${form.says.status}`)
    }
    if (wrong.length > 0) throw new Violations(wrong)
    return { commands: accepted.length, ...judged, expired: seen.reduce((sum, { ids }) => sum + ids.length, 0) }
  },
})

async function setScene(stand: Stand, clientId: string, sizes: Scene['sizes'], accepted: Accepted[]): Promise<Scene> {
  const { hostname: host, port } = new URL(stand.mqtt)
  const network = stand.use(await openFaultyNetwork({ host, port: Number(port) }))
  const clientKey = await stand.register(clientId, { maxInFlight: 1000 })
  const orders: HostOrders = {
    url: `mqtt://127.0.0.1:${network.port}`,
    directory: join(stand.directory, 'devices'),
    devices: [{ id: clientId, clientKey }],
    reconnect: { minMs: 50, maxMs: 300 },
  }
  const online = async (state: boolean): Promise<void> => {
    const shown = async (): Promise<boolean> =>
      (await stand.api.get(`/clients/${clientId}`)).body.presence === (state ? 'online' : 'offline')
    await until(shown, `${clientId} ${state ? 'online' : 'offline'}`)
  }
  const start = async (): Promise<AgentHost> => {
    const agent = stand.use(await startAgents(orders))
    await online(true)
    return agent
  }
  return { stand, clientId, network, accepted, sizes, start, online }
}

async function works({ stand, clientId, accepted }: Scene): Promise<void> {
  const { id } = await create(stand, accepted, { clientId, action: 'print', payload: BRIEF })
  await untilItHappens(stand.directory, [id])
}

/** Both of its handlers are busy for so long. */
async function occupy({ stand, clientId, accepted }: Scene, thinkMs: number): Promise<void> {
  const payload: Work = { thinkMs, fails: false }
  const busy = await Promise.all(
    Array.from({ length: CONCURRENCY }, () => create(stand, accepted, { clientId, action: 'print', payload })),
  )
  await untilItHappens(
    stand.directory,
    busy.map(({ id }) => id),
  )
}

const sendAll = ({ stand, clientId, accepted, sizes }: Scene): Promise<Accepted[]> =>
  Promise.all(
    Array.from({ length: sizes.queued }, (_, index) => {
      const action = index % 10 === 9 ? 'index' : 'print'
      return create(stand, accepted, { clientId, action, payload: BRIEF, ttlSeconds: sizes.ttlSeconds })
    }),
  )

async function untilIn({ stand, clientId, sizes }: Scene, commands: Accepted[], statuses: string[]): Promise<void> {
  const count = `select count(*)::integer as count from executions
    where client_id = $1 and command_id = any($2::uuid[]) and status = any($3::text[])`
  const values = [clientId, commands.map(({ id }) => id), statuses]
  const there = async (): Promise<boolean> =>
    (await stand.sql<{ count: number }>(count, values))[0]?.count === commands.length
  await until(there, `${clientId}: all ${statuses[0]}`, sizes.ttlSeconds * 1000 + 30_000)
}

const untilExpired = async ({ stand }: Scene, commands: Accepted[]): Promise<void> => {
  const left = 'select 1 from executions where command_id = any($1::uuid[]) and expires_at > clock_timestamp() limit 1'
  const ids = commands.map(({ id }) => id)
  await until(async () => (await stand.sql(left, [ids])).length === 0, 'the expiry', 120_000)
}

/** By what the agent has written down: it counts from the arrival of a command. */
async function untilTooLate({ stand, clientId }: Scene): Promise<void> {
  const journal = new DatabaseSync(join(stand.directory, 'devices', `${clientId}.sqlite`), { readOnly: true })
  const last = Number(
    journal.prepare('select max(deadline_ms) as last from attempts where state = ?').get('accepted')?.last,
  )
  journal.close()
  await until(() => uptime() * 1000 > last, 'the last deadline in the journal', 120_000)
}

/** The agent itself has, without a connection. */
async function untilGivenUp({ stand, clientId }: Scene, commands: Accepted[]): Promise<void> {
  const journal = new DatabaseSync(join(stand.directory, 'devices', `${clientId}.sqlite`), { readOnly: true })
  try {
    const expired = journal.prepare("select count(*) as n from attempts where state = 'expired'")
    await until(() => expired.get()?.n === commands.length, 'the agent gives all of them up', 120_000)
  } finally {
    journal.close()
  }
}

/** None of them ran, and the ledger and the timeline say the same of each. */
function* notAsItShould(
  { name, says }: Form,
  ids: string[],
  { executions, events, effects }: Evidence,
): Iterable<string> {
  const ran = new Set(effects.map(({ id }) => id))
  const execution = new Map(executions.map((one) => [one.commandId, one]))
  const timeline = Map.groupBy(events, ({ commandId }) => commandId)
  for (const id of ids) {
    if (ran.has(id)) yield `${name}: ${id} ran after its expiry`
    const { status, errorCode } = execution.get(id) ?? {}
    if (status !== says.status || errorCode !== says.code) yield `${name}: ${id} is ${status} (${errorCode})`
    const known = timeline.get(id)?.map(({ type }) => type) ?? []
    if (known.join() !== says.events.join()) yield `${name}: the timeline of ${id} is ${known}`
  }
}

/** What a user is told. */
async function whatTheApiSays(stand: Stand, { name, says }: Form, id: string): Promise<string[]> {
  const { body: command } = await stand.api.get(`/commands/${id}`)
  const { body: explained } = await stand.api.get(`/commands/${id}/explain`)
  const { body: timeline } = await stand.api.get(`/commands/${id}/timeline`)
  const types = timeline.items.map(({ type }: { type: string }) => type)
  const lines = []
  if (command.status !== says.status || (command.error?.code ?? null) !== says.code)
    lines.push(`${name}: the API says ${command.status} of ${id} (${JSON.stringify(command.error)})`)
  if (explained.items.length > 0) lines.push(`${name}: ${id} is over, and explain says ${JSON.stringify(explained)}`)
  if (types.join() !== says.events.join()) lines.push(`${name}: the timeline of ${id} says ${types}`)
  return lines
}
