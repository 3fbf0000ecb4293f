import { sql } from 'kysely'
import type { Grant } from '../schemas/principals.ts'
import type { Audited } from './audit.ts'
import type { Db } from './connect.ts'

/** Undefined if there is no such principal. */
export async function findGrants(db: Db, principalId: string): Promise<Grant[] | undefined> {
  const row = await db
    .selectFrom('principals')
    .select('grants')
    .where('id', '=', principalId)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
  return row && (row.grants as Grant[])
}

export async function replaceGrants(db: Audited, principalId: string, grants: Grant[]): Promise<void> {
  await db
    .updateTable('principals')
    .set({ grants: JSON.stringify(grants) })
    .where('id', '=', principalId)
    .execute()
}

/** Clients by id with their zones, for deciding what is allowed with them. Those that are disabled or deleted get nothing. */
export async function findMembers(
  db: Db,
  target: { kind: 'zone'; zone: string } | { kind: 'broadcast' },
): Promise<{ id: string; zones: string[] }[]> {
  const found = await sql<{ id: string; zones: string[] }>`
    select k.id, array(select z.zone from zone_members z where z.client_id = k.id) as zones from clients k
    where k.deleted_at is null and not k.disabled
      ${target.kind === 'zone' ? sql`and exists (select 1 from zone_members z where z.client_id = k.id and z.zone = ${target.zone})` : sql``}`.execute(
    db,
  )
  return found.rows
}

/** The clients of a command, all or those named, with their zones. */
export async function findClientsOfCommand(
  db: Db,
  commandId: string,
  clientIds?: string[],
): Promise<{ id: string; zones: string[] }[]> {
  const found = await sql<{ id: string; zones: string[] }>`
    select e.client_id as id, array(select z.zone from zone_members z where z.client_id = e.client_id) as zones
    from executions e where e.command_id = ${commandId}
      ${clientIds ? sql`and e.client_id = any(${clientIds}::text[])` : sql``}`.execute(db)
  return found.rows
}

export async function findZonesOf(db: Db, clientId: string): Promise<string[]> {
  const found = await db.selectFrom('zone_members').select('zone').where('client_id', '=', clientId).execute()
  return found.map(({ zone }) => zone)
}
