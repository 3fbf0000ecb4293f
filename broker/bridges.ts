import type { Aedes, Client, Subscription } from 'aedes'
import type { Logger } from 'pino'
import type { Control } from '../control/control.ts'
import { buildTopic } from '../schemas/topics.ts'
import type { Connections } from './connections.ts'
import { highestQos } from './topic-filter.ts'

interface Deps {
  root: string
  log: Logger
  control: Control
  connections: Connections
  retained: ReadonlyMap<string, unknown>
}

/**
 * A broker that bridges says so in its CONNECT, and mqtt-packet asks for *retain as published* in its name: it keeps what is
 * retained, and removes it when it hears an empty message. What was deleted while it was away it would show for ever, so it is
 * told of all deleted clients whenever it subscribes.
 */
export function tellBridges(aedes: Aedes, { root, log, control, connections, retained }: Deps): void {
  aedes.on('subscribe', (subscriptions, client) => {
    if (connections.of(client).login.kind !== 'principal' || !subscriptions.some(keepsRetained)) return
    tellOfDeleted(client).catch((error: Error) => {
      log.warn({ client: client.id, reason: error.message }, 'bridge could not be told what was deleted')
      // It subscribes again when it is back, and is told then.
      client.close()
    })
  })

  async function tellOfDeleted(client: Client): Promise<void> {
    const { filters } = connections.of(client)
    for await (const clientIds of control.deletedClients()) {
      const topics = clientIds.flatMap((clientId) => [
        buildTopic(root, 'clientStatus', { clientId }),
        buildTopic(root, 'clientConfig', { clientId }),
      ])
      // An id may have been used again since it was read.
      const gone = topics.filter((topic) => !retained.has(topic) && highestQos(filters, topic) !== undefined)
      await Promise.all(gone.map((topic) => publishNothing(client, topic)))
      if (client.closed) return
    }
  }
}

const keepsRetained = ({ rap }: Subscription & { rap?: boolean }): boolean => rap === true

const publishNothing = (client: Client, topic: string): Promise<void> =>
  new Promise((resolve) => {
    client.publish({ cmd: 'publish', topic, payload: Buffer.alloc(0), qos: 0, retain: true, dup: false }, () =>
      resolve(),
    )
  })
