import type { Registry } from '../control/metrics/registry.ts'
import type { Connections } from './connections.ts'

/** The state of the connections, for a scrape: one pass over them. */
export function observeConnections(registry: Registry, connections: Connections, maxHeld: number): void {
  registry.observed(
    'gauge',
    'mqtt_connections',
    'MQTT connections that are logged in, by what they logged in as.',
    () => {
      const counts = { client: 0, report: 0, principal: 0 }
      for (const { login } of connections.all()) counts[login.kind]++
      return Object.entries(counts).map(([login, value]) => ({ labels: { login }, value }))
    },
  )
  registry.observed('gauge', 'mqtt_held_messages', 'Messages of clients that wait for their commit.', () => {
    let held = 0
    for (const connection of connections.all()) held += connection.held
    return held
  })
  registry.observed(
    'gauge',
    'mqtt_paused_connections',
    'Connections that are read no further: MAX_HELD_REPORTS of their messages wait for their commit.',
    () => {
      let paused = 0
      for (const connection of connections.all()) if (connection.held > maxHeld) paused++
      return paused
    },
  )
}
