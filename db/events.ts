import { sql } from 'kysely'
import type { Event, EventType } from '../schemas/events.ts'
import type { Json } from '../schemas/json.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Db } from './connect.ts'
import { compact, page, rows } from './rows.ts'

/** A command's life in order. `after` is the id of the last event seen. */
export async function listTimeline(
  db: Db,
  commandId: string,
  filter: { clientId?: string },
  paging: Paging,
): Promise<Page<Event>> {
  let query = db.selectFrom('events').selectAll().where('command_id', '=', commandId)
  if (filter.clientId !== undefined) query = query.where('client_id', '=', filter.clientId)
  if (paging.after !== undefined) query = query.where('id', '>', Number(paging.after))
  const found = await query
    .orderBy('id')
    .limit(paging.limit + 1)
    .execute()
  return page(
    found,
    paging.limit,
    (row) => String(row.id),
    (row) => ({
      id: String(row.id),
      type: row.type as EventType,
      at: row.at.toISOString(),
      data: row.data as Record<string, Json>,
      ...compact({ commandId: row.command_id, clientId: row.client_id, attempt: row.attempt }),
    }),
  )
}

/** Keeps events that clients sent; a repetition (same client, same id) is kept once. */
export async function insertClientEvents(
  db: Db,
  events: { clientId: string; type: string; id: string; body: Record<string, unknown> }[],
): Promise<void> {
  const input = events.map((event, ord) => ({
    ord,
    client_id: event.clientId,
    event_id: event.id,
    data: { type: event.type, event: event.body },
  }))
  await sql`
    insert into events (type, client_id, client_event_id, data)
    select 'client.event', client_id, event_id, data
    from ${rows(input)} as i(ord integer, client_id text, event_id text, data jsonb)
    order by client_id, event_id
    on conflict (client_id, client_event_id) where client_event_id is not null do nothing`.execute(db)
}
