import { sql } from 'kysely'
import type { Page, Paging } from '../schemas/paging.ts'
import type { Zone } from '../schemas/zones.ts'
import type { Audited } from './audit.ts'
import type { Db } from './connect.ts'
import { page } from './rows.ts'

/** A zone exists while it has members. */
export async function listZones(db: Db, paging: Paging): Promise<Page<Zone>> {
  const found = await sql<Zone>`
    select z.zone, count(*)::integer as clients, (count(*) filter (where k.session_epoch is not null and not k.silent))::integer as online
    from zone_members z join clients k on k.id = z.client_id
    where z.zone > ${paging.after ?? ''} group by z.zone order by z.zone limit ${paging.limit + 1}`.execute(db)
  return page(
    found.rows,
    paging.limit,
    (row) => row.zone,
    (row) => row,
  )
}

/** Answers whether this changed anything; false also if there is no such client. */
export async function addZoneMember(db: Audited, zone: string, clientId: string): Promise<boolean> {
  const found = await sql`
    with member as (
      insert into zone_members (zone, client_id) select ${zone}, id from clients where id = ${clientId} and deleted_at is null
      on conflict do nothing returning zone, client_id
    )
    insert into events (type, client_id, data) select 'client.updated', client_id, jsonb_build_object('joined', zone) from member
    returning id`.execute(db)
  return found.rows.length > 0
}

/** Answers whether the client was in the zone. */
export async function removeZoneMember(db: Audited, zone: string, clientId: string): Promise<boolean> {
  const found = await sql`
    with member as (delete from zone_members where zone = ${zone} and client_id = ${clientId} returning zone, client_id)
    insert into events (type, client_id, data) select 'client.updated', client_id, jsonb_build_object('left', zone) from member
    returning id`.execute(db)
  return found.rows.length > 0
}
