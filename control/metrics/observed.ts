import type { Logger } from 'pino'
import { countOpenAlerts } from '../../db/alerts.ts'
import type { Db } from '../../db/connect.ts'
import { feedLagSeconds } from '../../db/events.ts'
import { AlertKind } from '../../schemas/alerts.ts'
import type { Line } from '../cluster/line.ts'
import type { Sessions } from '../sessions/sessions.ts'
import { within } from '../within.ts'
import { OTHER } from './metrics.ts'
import type { Registry, Sample } from './registry.ts'

/**
 * Whether PostgreSQL answers, how far the feed is behind, and how many alerts are not resolved: two queries per scrape, however
 * many ask at once, which history does not slow down. Without an answer
 * for `timeoutSeconds` it counts as down, so that a scrape comes to its end in time to say so.
 */
export function observeDatabase(registry: Registry, db: Db, log: Logger, timeoutSeconds: number): void {
  let asking: Promise<{ lag: number; alerts: Map<AlertKind, number> } | undefined> | undefined
  const ask = (): NonNullable<typeof asking> => {
    asking ??= within(timeoutSeconds, Promise.all([feedLagSeconds(db), countOpenAlerts(db)]))
      .then(([lag, alerts]) => ({ lag, alerts }))
      .catch((error: Error) => void log.warn({ reason: error.message }, 'the feed and the alerts cannot be measured'))
      .finally(() => {
        asking = undefined
      })
    return asking
  }
  registry.observed('gauge', 'database_up', '1 while PostgreSQL answers.', async () =>
    (await ask()) === undefined ? 0 : 1,
  )
  registry.observed(
    'gauge',
    'feed_lag_seconds',
    'Age of the oldest committed event that the feed does not show yet; absent while PostgreSQL does not answer.',
    async () => (await ask())?.lag ?? [],
  )
  registry.observed(
    'gauge',
    'alerts_open',
    'Alerts that are not resolved, acknowledged or not; absent while PostgreSQL does not answer.',
    async () => {
      const found = await ask()
      return found ? AlertKind.options.map((kind) => ({ labels: { kind }, value: found.alerts.get(kind) ?? 0 })) : []
    },
  )
}

/** Who is connected, from memory. A client in several zones counts in each. */
export function observeSessions(registry: Registry, sessions: Sessions, maxZones: number): void {
  registry.observed(
    'gauge',
    'connected_clients',
    'Clients with a session on this node, over MQTT or HTTP.',
    () => [...sessions.all()].length,
  )
  /** A zone whose last client has gone is shown as 0, not forgotten: that is what somebody waits to see. */
  let shown: string[] = []
  registry.observed(
    'gauge',
    'zone_connected_clients',
    'The same by zone; a client in several zones counts in each, one in no zone in none.',
    () => {
      const counts = new Map(shown.map((zone) => [zone, 0]))
      for (const { config } of sessions.all())
        for (const zone of config.zones) counts.set(zone, (counts.get(zone) ?? 0) + 1)
      const ranked = [...counts].sort(([a, most], [b, least]) => least - most || (a < b ? -1 : 1))
      shown = ranked.slice(0, maxZones).map(([zone]) => zone)
      const others = ranked.slice(maxZones).reduce((sum, [, count]) => sum + count, 0)
      const samples: Sample[] = shown.map((zone) => ({ labels: { zone }, value: counts.get(zone) as number }))
      return others > 0 ? [...samples, { labels: { zone: OTHER }, value: others }] : samples
    },
  )
}

/** The line to the other nodes: one message carries what was said in one turn of the loop. */
export function observeLine(registry: Registry, line: Line): void {
  registry.observed('gauge', 'line_up', '1 while what is told to other nodes arrives.', () => (line.up() ? 1 : 0))
  registry.observed('counter', 'line_messages_total', 'Messages to other nodes, by what became of them.', () => {
    const { sent, failed } = line.counts()
    return [
      { labels: { outcome: 'sent' }, value: sent },
      { labels: { outcome: 'failed' }, value: failed },
    ]
  })
}
