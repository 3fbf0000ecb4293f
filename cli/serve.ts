import { createApp } from '../app.ts'
import { settingsFromEnvironment } from './settings.ts'

/** Runs the server until SIGINT or SIGTERM; a second signal ends it at once. Exit code 1: it could not start. */
export async function serve(): Promise<void> {
  const app = createApp(settingsFromEnvironment())
  let stopping = false
  const stop = (): void => {
    if (stopping) process.exit(130)
    stopping = true
    app.stop().then(
      () => process.exit(0),
      (error) => {
        console.error(error)
        process.exit(1)
      },
    )
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  try {
    const addresses = await app.start()
    console.log('Signalbox is ready.')
    console.log(`  HTTP API   ${addresses.http}/api`)
    console.log(`  MQTT       ${addresses.mqtt}`)
    console.log(`  WebSocket  ${addresses.mqttWebSocket}`)
    if (addresses.tls) {
      console.log(`  HTTPS API  ${addresses.tls.https}/api`)
      console.log(`  MQTT, TLS  ${addresses.tls.mqtts}`)
      console.log(`  WebSocket  ${addresses.tls.mqttWebSocket}`)
    }
    console.log(`  Database   ${addresses.database}`)
    if (addresses.newAdminToken) console.log(`  Admin token, shown only now: ${addresses.newAdminToken}`)
  } catch (error) {
    console.error(`signalbox: ${(error as Error).message}`)
    process.exit(1)
  }
}
