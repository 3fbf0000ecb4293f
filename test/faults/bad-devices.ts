import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectDevice, type Device, ROOT } from '../support/device.ts'
import { until } from '../support/until.ts'
import type { Luck } from './luck.ts'
import type { AcknowledgedReport } from './plain-device.ts'
import type { Stand } from './stand.ts'
import { type EffectFile, openEffects, type Work } from './work.ts'

/** A device that does not keep to the protocol, or only just. */
export interface BadDevice extends AsyncDisposable {
  clientId: string
  /** What it did, and what was done to it. */
  counts: Map<string, number>
  /** Reports that it saw acknowledged. */
  acknowledged: AcknowledgedReport[]
  /** What it noticed that must not be. */
  wrong: string[]
}

interface Command {
  messageId: number
  id: string
  attempt: number
  work: Work
}

interface Self extends BadDevice {
  stand: Stand
  luck: Luck
  effects: EffectFile
  stopped: boolean
  /** Commands that came on this connection and were not taken yet. */
  arrived(): Command[]
  count(what: string): void
}

/** What it does with one connection, until that is closed or the device is stopped. */
type Manner = (device: Device, self: Self) => Promise<void>

const going = (device: Device, { stopped }: Self): boolean => !device.closed && !stopped

/** It takes everything, says that it is alive, and acknowledges nothing. */
async function neverAcknowledge(device: Device, self: Self): Promise<void> {
  while (going(device, self)) {
    for (const _command of self.arrived()) self.count('left without PUBACK')
    device.send({ cmd: 'pingreq' })
    await sleep(300)
  }
  if (device.closed) self.count('closed by the server')
}

/** It does not read: what is sent to it fills the buffers between the two. */
async function readNothing(device: Device, self: Self): Promise<void> {
  device.stopReading()
  const offline = async (): Promise<boolean> =>
    self.stopped || (await self.stand.api.get(`/clients/${self.clientId}`)).body.presence === 'offline'
  await until(offline, 'the server gives a reader up that reads nothing', 60_000)
  if (!self.stopped) self.count('closed by the server')
}

/** It acknowledges in any order, twice, and what it never got; each PUBACK has to count for its own message all the same. */
async function acknowledgeAnyhow(device: Device, self: Self): Promise<void> {
  const { luck, stand, clientId } = self
  while (going(device, self)) {
    await sleep(100)
    const commands = luck.shuffled(self.arrived())
    if (commands.length === 0) continue
    const inHand = new Set(commands.map(({ messageId }) => messageId))
    const bogus = (): void => {
      const messageId = luck.between(1, 65_535)
      if (inHand.has(messageId)) return
      device.ack(messageId)
      self.count('bogus PUBACKs')
    }
    const first = commands.slice(0, Math.ceil(commands.length / 2))
    const rest = commands.slice(first.length)
    for (const { messageId } of first) {
      bogus()
      device.ack(messageId)
      if (luck.chance(0.5)) device.ack(messageId)
      self.count('PUBACKs in any order')
    }
    const statuses = async (): Promise<Map<string, string>> => {
      const rows = await stand.sql<{ id: string; status: string }>(
        'select command_id as id, status from executions where client_id = $1 and command_id = any($2::uuid[])',
        [clientId, commands.map(({ id }) => id)],
      )
      return new Map(rows.map(({ id, status }) => [id, status]))
    }
    await until(async () => {
      const now = await statuses()
      return first.every(({ id }) => now.get(id) !== 'queued') || !going(device, self)
    }, 'PUBACKs that count')
    const now = await statuses()
    for (const { id } of going(device, self) ? rest : [])
      if (now.get(id) !== 'queued') self.wrong.push(`${id} was not acknowledged by ${clientId} and is ${now.get(id)}`)
    for (const { messageId } of rest) {
      bogus()
      device.ack(messageId)
      self.count('PUBACKs in any order')
    }
    for (const { id, attempt } of commands) self.effects.append({ clientId, id, attempt })
    await Promise.all(luck.shuffled(commands).map(({ id, attempt }) => report(device, self, id, 'completed', attempt)))
  }
}

/** It reports what is true, but again and again, too late, in any order, of older attempts, and without saying which. */
async function reportAnyhow(device: Device, self: Self): Promise<void> {
  const { luck, clientId } = self
  while (going(device, self)) {
    await sleep(20)
    for (const { messageId, id, attempt, work } of self.arrived()) {
      self.effects.append({ clientId, id, attempt })
      device.ack(messageId)
      const outcome = attempt <= (work.failures ?? 0) ? 'failed' : 'completed'
      const older = attempt - 1
      const said: Promise<void>[] = []
      const say = (kind: string, status: string, which?: number): void => {
        self.count(kind)
        said.push(report(device, self, id, status, which))
      }
      const before = luck.shuffled([
        () => say('reports twice', 'running', attempt),
        () => say('reports twice', 'running', attempt),
        () => say('reports without attempt', 'running'),
        () => say('reports of a future attempt', 'running', attempt + 1),
        ...(older > 0
          ? [
              () => say('reports of older attempts', 'failed', older),
              () => say('reports of older attempts', 'running', older),
            ]
          : []),
      ])
      for (const go of before.slice(0, luck.between(0, before.length))) go()
      say('outcomes', outcome, attempt)
      const after = [
        () => say('reports after the end', 'running', attempt),
        () => say('reports twice', outcome, attempt),
        ...(outcome === 'completed' ? [() => say('reports without attempt', 'completed')] : []),
        ...(older > 0 ? [() => say('reports of older attempts', 'failed', older)] : []),
      ]
      for (const go of luck.shuffled(after)) go()
      self.count('reports of nothing')
      said.push(device.report(randomUUID(), { status: 'completed', attempt: 1 }))
      said.push(device.report('no-command', { status: 'running', attempt: 1 }))
      await Promise.all(said)
    }
  }
}

export const MANNERS: Record<string, Manner> = {
  'never-acknowledges': neverAcknowledge,
  'reads-nothing': readNothing,
  'acknowledges-anyhow': acknowledgeAnyhow,
  'reports-anyhow': reportAnyhow,
}

const RECONNECT_MS = 200

export function startBadDevice(
  stand: Stand,
  manner: keyof typeof MANNERS,
  { clientId, clientKey: password }: { clientId: string; clientKey: string },
  luck: Luck,
): BadDevice {
  const mqttPort = Number(new URL(stand.mqtt).port)
  const counts = new Map<string, number>()
  const count = (what: string): void => void counts.set(what, (counts.get(what) ?? 0) + 1)
  const effects = openEffects(join(stand.directory, 'devices', `effects-${clientId}.jsonl`))
  const bad = { clientId, counts, acknowledged: [], wrong: [] as string[], stand, luck, effects, count, stopped: false }

  async function session(): Promise<void> {
    const device = await connectDevice({ mqttPort }, { clientId, password, keepalive: 10 })
    try {
      if (device.returnCode !== 0) return
      await device.subscribe(`${ROOT}/clients/${clientId}/commands`)
      let seen = 0
      const arrived = (): Command[] => {
        const messages = device.received(`${ROOT}/clients/${clientId}/commands`).slice(seen)
        seen += messages.length
        return messages.flatMap(({ messageId, payload }) => {
          const { type, id, attempt, payload: work } = payload as unknown as { type: string; payload: Work } & Command
          return type === 'command' && messageId !== undefined ? [{ messageId, id, attempt, work }] : []
        })
      }
      // Whether it has been stopped is asked for again and again.
      await (MANNERS[manner] as Manner)(device, Object.assign(Object.create(bad), { arrived }))
    } catch (error) {
      // Whatever was under way when the connection was lost.
      if (!device.closed) throw error
    } finally {
      device.drop()
    }
  }

  async function stayConnected(): Promise<void> {
    while (!bad.stopped) {
      await session().catch((error) => bad.wrong.push(`${clientId}: ${error}`))
      await sleep(RECONNECT_MS)
    }
    effects.close()
  }
  const running = stayConnected()
  return Object.assign(bad, {
    async [Symbol.asyncDispose]() {
      bad.stopped = true
      await running
    },
  })
}

async function report(device: Device, self: Self, id: string, status: string, attempt?: number): Promise<void> {
  await device.report(id, { status, ...(attempt === undefined ? {} : { attempt }) })
  if (attempt !== undefined) self.acknowledged.push({ clientId: self.clientId, id, attempt, status })
}
