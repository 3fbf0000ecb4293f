import { sql } from 'kysely'
import type { Action, PutAction } from '../schemas/actions.ts'
import type { Delivery } from '../schemas/executions.ts'
import type { Json } from '../schemas/json.ts'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Audited } from './audit.ts'
import type { Db } from './connect.ts'
import { compact, page } from './rows.ts'

interface ActionRow {
  name: string
  payload_schema: Record<string, unknown> | null
  delivery: string
  start_timeout_seconds: number | null
  timeout_seconds: number | null
  ttl_seconds: number | null
  max_retries: number | null
  priority: number | null
  description: string | null
  updated_at: Date
}

/** Creates or replaces an action: what is not given is unset. */
export async function putAction(db: Audited, name: string, action: PutAction): Promise<Action> {
  const values = {
    payload_schema: action.payloadSchema ? JSON.stringify(action.payloadSchema) : (null as unknown as string),
    delivery: action.delivery ?? 'at_most_once',
    start_timeout_seconds: action.startTimeoutSeconds ?? null,
    timeout_seconds: action.timeoutSeconds ?? null,
    ttl_seconds: action.ttlSeconds ?? null,
    max_retries: action.maxRetries ?? null,
    priority: action.priority ?? null,
    description: action.description ?? null,
    updated_at: sql<Date>`clock_timestamp()`,
  }
  const row = await db
    .insertInto('actions')
    .values({ name, ...values })
    .onConflict((conflict) => conflict.column('name').doUpdateSet(values))
    .returningAll()
    .executeTakeFirstOrThrow()
  return toAction(row)
}

export async function findAction(db: Db, name: string): Promise<Action | undefined> {
  const row = await db.selectFrom('actions').selectAll().where('name', '=', name).executeTakeFirst()
  return row && toAction(row)
}

export async function listActions(db: Db, paging: Paging): Promise<Page<Action>> {
  let query = db.selectFrom('actions').selectAll()
  if (paging.after !== undefined) query = query.where('name', '>', paging.after)
  const found = await query
    .orderBy('name')
    .limit(paging.limit + 1)
    .execute()
  return page(found, paging.limit, (row) => row.name, toAction)
}

export async function listActionNames(db: Db): Promise<string[]> {
  const found = await db.selectFrom('actions').select('name').execute()
  return found.map((row) => row.name)
}

export async function deleteAction(db: Audited, name: string): Promise<boolean> {
  const row = await db.deleteFrom('actions').where('name', '=', name).returning('name').executeTakeFirst()
  return row !== undefined
}

function toAction(row: ActionRow): Action {
  return {
    name: row.name,
    delivery: row.delivery as Delivery,
    updatedAt: row.updated_at.toISOString(),
    ...compact({
      payloadSchema: row.payload_schema as Record<string, Json> | null,
      startTimeoutSeconds: row.start_timeout_seconds,
      timeoutSeconds: row.timeout_seconds,
      ttlSeconds: row.ttl_seconds,
      maxRetries: row.max_retries,
      priority: row.priority,
      description: row.description,
    }),
  }
}
