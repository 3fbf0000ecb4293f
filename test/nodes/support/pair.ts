import { commandsOf, own } from '../../broker/support/scene.ts'
import { createTestDatabase, type TestDatabase } from '../../support/database.ts'
import { connectDevice, type Device, type DeviceOptions, ROOT } from '../../support/device.ts'
import { startServer, type TestServer } from '../../support/server.ts'
import { until } from '../../support/until.ts'

export interface Pair {
  a: TestServer
  b: TestServer
  both: TestServer[]
  database: TestDatabase
  stop(): Promise<void>
}

/** Rare enough that a test which needs the sweeper's help does not pass by it. */
export const SLOW_SWEEP = { SWEEP_INTERVAL_SECONDS: 30 }

/** Two nodes in this process, with one database; `settings` of both, or of each. */
export async function startPair(
  settings: Record<string, unknown> | ((node: 'a' | 'b') => Record<string, unknown>),
  given?: TestDatabase,
): Promise<Pair> {
  const database = given ?? (await createTestDatabase())
  const of = (node: 'a' | 'b') => (typeof settings === 'function' ? settings(node) : settings)
  const a = await startServer(of('a'), { database })
  const b = await startServer(of('b'), { database })
  return {
    a,
    b,
    both: [a, b],
    database,
    async stop() {
      await Promise.all([a.stop(), b.stop()])
      await database.drop()
    },
  }
}

const redisState = async (server: TestServer): Promise<string> => {
  const answer = await fetch(`${server.http}/health`)
  return ((await answer.json()) as { checks: { redis: { state: string } } }).checks.redis.state
}

export const untilRedis = (server: TestServer, state: string) =>
  until(async () => (await redisState(server)) === state, `redis ${state}`)

export const statusOf = (clientId: string): string => own(clientId, 'status')

/** Connects and subscribes to its commands, to those of its zones, and to the broadcast ones. */
export async function enter(
  server: TestServer,
  clientId: string,
  password: string,
  { zones = [], ...options }: Partial<DeviceOptions> & { zones?: string[] } = {},
): Promise<Device> {
  const device = await connectDevice(server, { clientId, password, ...options })
  if (device.returnCode !== 0) throw new Error(`${clientId}: CONNACK ${device.returnCode}`)
  const topics = [...zones.map((zone) => `${ROOT}/zones/${zone}/commands`), `${ROOT}/broadcast/commands`]
  await device.subscribe([...topics, commandsOf(clientId)])
  return device
}

export async function send(server: TestServer, body: Record<string, unknown>): Promise<string> {
  const answer = await server.api.post('/commands', { action: 'do', ...body })
  if (answer.status !== 201) throw new Error(`${answer.status} ${JSON.stringify(answer.body)}`)
  return answer.body.id
}

/** Acknowledges the next command, past what is withdrawn, and reports that it is done. */
export async function complete(device: Device): Promise<string> {
  for (;;) {
    const { messageId, payload } = await device.nextCommand()
    device.ack(messageId)
    if (payload.type !== 'command') continue
    await device.report(payload.id as string, { status: 'completed', attempt: payload.attempt })
    return payload.id as string
  }
}
