import { sql } from 'kysely'
import { openOf, pendingOf } from './client-work.ts'
import type { Db } from './connect.ts'

/** Some clients in the order of their ids, looked at for what their alerts should be. */
export interface ClientSlice {
  /** Where the next slice begins; the empty text is the beginning. */
  next: string
  /** Offline for too long while work for them is unsettled, and no alert says so. */
  lost: { clientId: string; offlineSince: string }[]
  /** Open alerts about clients that may be over. */
  over: { kind: 'client_lost' | 'client_refused'; clientId: string; why: Over }[]
}

/** `at_qos_0`: refused for its subscription; whether that was granted meanwhile is for whoever has the session to say. */
export type Over = 'deleted' | 'back' | 'nothing_waits' | 'at_qos_0'

/** Work that is not settled. */
const HAS_WORK = (clientId: string) => sql`(
  exists (select 1 from ${pendingOf(sql.ref(clientId))} e) or exists (select 1 from ${openOf(sql.ref(clientId))} e))`

/**
 * Looks at `limit` clients behind `after`. Presence changes with every connection and has no index, so that the fleet is looked
 * at slice by slice: what a look costs does not grow with it.
 */
export async function readClientSlice(db: Db, after: string, limit: number, lostSeconds: number): Promise<ClientSlice> {
  const found = await sql<SliceRow>`
    with slice as materialized (
      select k.id, k.presence_since, k.session_epoch is not null and not k.silent as online from clients k
      where k.id > ${after} and k.deleted_at is null order by k.id limit ${limit}
    ),
    bounds as (select case when count(*) = ${limit}::bigint then max(id) end as upto from slice),
    lost as (
      select s.id, s.presence_since from slice s
      where not s.online and s.presence_since < clock_timestamp() - make_interval(secs => ${lostSeconds})
        and ${HAS_WORK('s.id')}
        -- One look-up for each: a join would compare all with all while PostgreSQL has no statistics of a new fleet.
        and (select a.id from alerts a where a.kind = 'client_lost' and a.subject = s.id and a.resolved_at is null) is null
    ),
    over as (
      select a.kind, a.subject,
        case
          when k.id is null then 'deleted'
          when a.kind = 'client_refused' then case when a.details ->> 'cause' = 'qos_0' then 'at_qos_0' end
          -- A newer presence: it was back, however briefly.
          when k.session_epoch is not null and not k.silent or k.presence_since > a.opened_at then 'back'
          when not ${HAS_WORK('k.id')} then 'nothing_waits'
        end as why
      from bounds b
      join alerts a on a.kind in ('client_lost', 'client_refused') and a.resolved_at is null
        and a.subject > ${after} and (b.upto is null or a.subject <= b.upto)
      left join clients k on k.id = a.subject and k.deleted_at is null
    )
    select b.upto, f.* from bounds b left join (
      select 'client_lost' as kind, id as client_id, presence_since as since, null as why from lost
      union all
      select kind, subject, null, why from over where why is not null
    ) f on true`.execute(db)
  return {
    next: found.rows[0]?.upto ?? '',
    lost: found.rows.flatMap(({ client_id, since }) =>
      since ? { clientId: client_id, offlineSince: since.toISOString() } : [],
    ),
    over: found.rows.flatMap(({ kind, client_id, why }) => (why ? { kind, clientId: client_id, why } : [])),
  }
}

interface SliceRow {
  /** Null once the last client was looked at. */
  upto: string | null
  kind: 'client_lost' | 'client_refused'
  client_id: string
  since: Date | null
  why: Over | null
}
