import type { Alert, AlertKind } from '../../schemas/alerts.ts'
import type { Http } from '../support/http.ts'
import { until } from '../support/until.ts'

interface Reachable {
  api: Http
}

export async function alertsOf(server: Reachable, query = ''): Promise<Alert[]> {
  const { status, body } = await server.api.get(`/alerts?limit=200${query && `&${query}`}`)
  if (status !== 200) throw new Error(JSON.stringify(body))
  return body.items
}

/** The one alert of a kind about a subject that is not resolved, once there is one and it is as `is` says. */
export async function untilOpen(
  server: Reachable,
  kind: AlertKind,
  subject: string,
  is: (alert: Alert) => boolean = () => true,
): Promise<Alert> {
  let found: Alert[] = []
  return until(async () => {
    found = (await alertsOf(server, `kind=${kind}`)).filter((alert) => alert.subject === subject)
    const [alert, ...more] = found
    return alert && more.length === 0 && is(alert) ? alert : undefined
  }, `alert ${kind} ${subject}`).catch((error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(found)}`)
  })
}

/** This alert, once it is resolved. */
export const untilResolved = (server: Reachable, { id }: Alert): Promise<Alert> =>
  until(
    async () => (await alertsOf(server, 'state=resolved')).find((alert) => alert.id === id),
    `alert ${id} is resolved`,
  )

interface Queryable {
  sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>
}

/**
 * Waits until everything that has happened so far was looked at: markers that no alert is about are committed, and the cursor of
 * the alerts passes them. The second one is for what the look at the first had not heard when it began. After that, an alert
 * that is not there will not come.
 */
export async function untilLookedAt({ sql }: Queryable): Promise<void> {
  for (let look = 0; look < 2; look++) {
    const [marker] = await sql(
      "insert into events (type, data) values ('client.event', '{}') returning xid::text as xid, id",
    )
    const passed = () =>
      sql("select 1 from feed_cursors where name = 'alerts' and (xid, id) >= ($1::xid8, $2::bigint)", [
        marker?.xid,
        marker?.id,
      ])
    await until(async () => (await passed()).length > 0, 'the alerts have caught up')
  }
}
