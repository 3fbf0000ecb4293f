import cluster from 'node:cluster'
import { type Addresses, createApp } from '../app.ts'
import { settingsFromEnvironment } from './settings.ts'
import { stopOnSignal } from './stop-on-signal.ts'
import { serveAsWorker, serveWithWorkers } from './workers.ts'

export interface ServeOptions {
  workers?: number
}

/** Runs the server until SIGINT or SIGTERM; a second signal ends it at once. Exit code 1: it could not start. */
export async function serve({ workers = 1 }: ServeOptions): Promise<void> {
  try {
    const settings = settingsFromEnvironment()
    if (cluster.isWorker) return await serveAsWorker(settings)
    if (workers > 1) return await serveWithWorkers(settings, workers, show)
    const app = createApp(settings)
    stopOnSignal(() => app.stop())
    show(await app.start())
  } catch (error) {
    console.error(`signalbox: ${(error as Error).message}`)
    process.exit(1)
  }
}

function show(addresses: Addresses): void {
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
}
