import { sql } from 'kysely'
import { openOf } from './client-work.ts'
import type { Db } from './connect.ts'
import type { ExecutionKey } from './executions.ts'

/** What these clients have in hand and are to be told that it is withdrawn. */
export async function findCancelRequests(db: Db, clientIds: string[]): Promise<ExecutionKey[]> {
  const { rows } = await sql<{ command_id: string; client_id: string }>`
    select e.command_id, e.client_id from unnest(${clientIds}::text[]) as k(id)
    cross join lateral ${openOf(sql`k.id`)} e
    where e.cancel_requested_at is not null`.execute(db)
  return rows.map((row) => ({ commandId: row.command_id, clientId: row.client_id }))
}
