import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { parseSettings } from '../../schemas/settings.ts'
import { createOpenBroker } from './open-broker.ts'

/** `npm run broker:open -- --port 11883`: listens on loopback until it is told to stop. */
const { values } = parseArgs({ options: { port: { type: 'string' }, 'ws-port': { type: 'string' } } })
const settings = parseSettings({
  MQTT_PORT: values.port ?? 11_883,
  MQTT_WS_PORT: values['ws-port'] ?? 0,
  LOG_LEVEL: 'error',
})
const broker = await createOpenBroker({ settings, log: pino({ level: settings.LOG_LEVEL }, pino.destination(2)) })
const ports = await broker.listen()
console.log(`Open MQTT broker, for conformance suites: mqtt://127.0.0.1:${ports.mqtt} ws://127.0.0.1:${ports.ws}/mqtt`)
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => broker.stop().then(() => process.exit(0)))
