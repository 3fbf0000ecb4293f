import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connectDevice, type Device, ROOT } from '../support/device.ts'
import { openEffects, type Work } from './work.ts'

/** A report whose PUBACK the device saw. */
export interface AcknowledgedReport {
  clientId: string
  id: string
  attempt: number
  status: string
}

/** A device without a journal, in any language: it acts, acknowledges, reports, and remembers only while it runs. */
export interface PlainDevice extends AsyncDisposable {
  acknowledged: AcknowledgedReport[]
}

const RECONNECT_MS = 300

export function startPlainDevice(orders: {
  mqttPort: number
  clientId: string
  clientKey: string
  directory: string
}): PlainDevice {
  const { clientId, clientKey: password, mqttPort } = orders
  const effects = openEffects(join(orders.directory, `effects-${clientId}.jsonl`))
  const acknowledged: AcknowledgedReport[] = []
  /** What it did, by `id attempt`, with the outcome. */
  const done = new Map<string, string>()
  /** Outcomes without a PUBACK: said again on the next connection. */
  const unsent = new Map<string, AcknowledgedReport>()
  const stop = new AbortController()

  async function session(): Promise<void> {
    const device = await connectDevice({ mqttPort }, { clientId, password, keepalive: 10 })
    try {
      if (device.returnCode !== 0) return
      await device.subscribe([`${ROOT}/clients/${clientId}/commands`, `${ROOT}/broadcast/commands`])
      for (const { id, attempt, status } of [...unsent.values()]) await report(device, id, attempt, status)
      let seen = 0
      while (!device.closed && !stop.signal.aborted) {
        const messages = device.received().slice(seen)
        seen += messages.length
        for (const { messageId, payload } of messages) await take(device, messageId, payload)
        await sleep(5)
      }
    } finally {
      device.drop()
    }
  }

  async function take(device: Device, messageId: number | undefined, message: Record<string, unknown>): Promise<void> {
    const { type, id, attempt, payload } = message as { type: string; id: string; attempt: number; payload: Work }
    const key = `${id} ${attempt}`
    if (type === 'cancel') {
      device.ack(messageId as number)
      // Without a journal nobody can say that it was never there, but while it runs it knows what it did.
      return await report(device, id, attempt, done.get(key) ?? 'outcome_unknown')
    }
    if (type !== 'command') return
    const first = !done.has(key)
    if (first) {
      effects.append({ clientId, id, attempt })
      const status = payload.fails ? 'failed' : 'completed'
      done.set(key, status)
      unsent.set(key, { clientId, id, attempt, status })
    }
    device.ack(messageId as number)
    if (first) await report(device, id, attempt, 'running')
    await report(device, id, attempt, done.get(key) as string)
  }

  async function report(device: Device, id: string, attempt: number, status: string): Promise<void> {
    const said = { clientId, id, attempt, status }
    if (status !== 'running') unsent.set(`${id} ${attempt}`, said)
    await device.report(id, { status, attempt })
    unsent.delete(`${id} ${attempt}`)
    acknowledged.push(said)
  }

  async function stayConnected(): Promise<void> {
    while (!stop.signal.aborted) {
      // A connection that is lost or refused is what this is all about.
      await session().catch(() => undefined)
      await sleep(RECONNECT_MS)
    }
    effects.close()
  }
  const running = stayConnected()

  return {
    acknowledged,
    async [Symbol.asyncDispose]() {
      stop.abort()
      await running
    },
  }
}
