import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Journal } from '../../agent/journal.ts'
import { silentLog } from '../../agent/log.ts'
import { Reporter, type SendReport } from '../../agent/reporter.ts'
import { Runner } from '../../agent/runner.ts'
import type { CancelMessage, CommandMessage } from '../../schemas/messages.ts'
import { handlersOf } from './device-handlers.ts'
import { openHttpDoor } from './http-door.ts'
import { openMqttDoor } from './mqtt-door.ts'
import { openPresenceLog } from './presence-log.ts'
import { type EffectFile, openEffects } from './work.ts'

/**
 * A process of devices that take their commands from a stream, with the agent's own journal, runner and reporter. Those with
 * both doors take them over MQTT too, into the same memory.
 */
export interface TwinOrders {
  http: string
  mqtt: string
  directory: string
  presenceLog: string
  pauseMs: number
  devices: { id: string; clientKey: string; zones: string[]; doors: 'http' | 'both' }[]
}

type Device = TwinOrders['devices'][number]

process.once('disconnect', () => process.exit(0))
process.once('message', (orders: TwinOrders) => {
  const effects = openEffects(join(orders.directory, 'effects-twins.jsonl'))
  const twins = orders.devices.map((device) => startTwin(device, orders, effects))
  process.send?.('started')
  process.once('message', async () => {
    await Promise.all(twins.map((twin) => twin.stop()))
    process.exit(0)
  })
})

function startTwin(device: Device, orders: TwinOrders, effects: EffectFile): { stop(): Promise<void> } {
  const { id: clientId, clientKey, zones, doors } = device
  const { http, mqtt: url, directory, pauseMs } = orders
  const journal = new Journal({ file: join(directory, `${clientId}${doors === 'both' ? '' : '@http'}.sqlite`) })
  journal.recover()
  const reporter = new Reporter({
    outcome: (key) => journal.report(key),
    unreported: () => journal.unreported(),
    acknowledged: (key) => journal.acknowledged(key),
  })
  const handlers = handlersOf(clientId, effects)
  const runner = new Runner({ journal, reporter, handlers, concurrency: 2, log: silentLog })

  function onMessage(message: CommandMessage | CancelMessage): void {
    if (message.type === 'command') {
      runner.changed(journal.received(message))
      return
    }
    const { abort, ...change } = journal.cancelled(message)
    if (abort !== undefined) runner.abort({ id: message.id, attempt: abort }, message.reason ?? 'cancelled')
    runner.changed(change)
  }

  const { journalId } = journal
  const log = openPresenceLog(orders.presenceLog)
  const common = { clientId, clientKey, journalId, onMessage, pauseMs }
  const httpDoor = openHttpDoor({ ...common, http, presence: log.door(clientId, 'http') })
  const mqttDoor =
    doors === 'both' ? openMqttDoor({ ...common, url, zones, presence: log.door(clientId, 'mqtt') }) : undefined

  // Every other report goes over MQTT, if there is that door and it is open: whichever connection carries it, it counts.
  let turn = 0
  const send: SendReport = async (id, report) => {
    if (
      mqttDoor &&
      turn++ % 2 === 0 &&
      (await mqttDoor.report(id, report).then(
        () => true,
        () => false,
      ))
    )
      return
    await httpDoor.report(id, report)
  }
  reporter.attach(send)

  return {
    async stop() {
      await runner.stop(5000, 1000)
      await Promise.race([reporter.idle(), sleep(5000, undefined, { ref: false })])
      await Promise.all([httpDoor.stop(), mqttDoor?.stop()])
      journal.close()
    },
  }
}
