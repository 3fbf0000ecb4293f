import { type RawBuilder, sql } from 'kysely'
import type { Target } from '../schemas/commands.ts'
import { pendingOf } from './client-work.ts'
import { SHARES, taken } from './quotas.ts'

// The part of the statement that stores commands that says which of them may be stored, and for whom.

const CLIENT = sql.raw('id, disabled, session_epoch is not null and not silent as online')

/** What is against a target: `waiting` before this command, its own place included. */
const reason = (waiting: RawBuilder<unknown>, maxPendingPerClient: number) => sql`
  case when disabled then 'disabled' when priority < 10 and ${waiting} > ${maxPendingPerClient} then 'queue_full' end as reason`

/** The place of a row among those for the same client that will be stored, and among all of them: nobody knows for certain before. */
const PLACE = sql`count(*) filter (where takes_place) over (partition by client_id order by ord)`
const PLACE_AT_MOST = sql`count(*) over (partition by client_id order by ord)::integer`

/**
 * One row has one client at most, which is therefore looked at with it. A client's row is locked as it is read. What waits is
 * counted where it is not sure that there is room, and tells how much of it is left at least.
 */
const single = (maxPendingPerClient: number, lock: RawBuilder<unknown>) => sql`
  targets as materialized (
    select id, client_id, online, pending, ${reason(sql`pending + place`, maxPendingPerClient)},
      case when not sure then ${maxPendingPerClient} - pending - place_at_most end as room
    from (
      select i.id, i.priority, i.sure, i.client_id, k.disabled, k.online,
        ${PLACE} as place, ${PLACE_AT_MOST} as place_at_most,
        case when i.sure then 0 else (select count(*)::integer from ${pendingOf(sql`i.client_id`)} e) end as pending
      from input i
      cross join lateral (select ${CLIENT} from clients where id = i.client_id and deleted_at is null offset 0 ${lock}) k
      offset 0 -- counted once
    ) m
  ),
  target_lists as (
    select id, room, case when reason is null then array[client_id] end as client_ids,
      ${hashOf(sql`case when reason is null then client_id else '' end`)} as hash,
      case when reason is null then '[]' else jsonb_build_array(jsonb_build_object('clientId', client_id, 'reason', reason)) end as excluded
    from targets
  )`

const hashOf = (list: RawBuilder<unknown>) => sql`encode(sha256(convert_to(${list}, 'UTF8')), 'hex')`

/** The clients of a group `i` as `k(id, disabled, online)`. */
const MEMBERS: Record<'zone' | 'broadcast', (lock: RawBuilder<unknown>) => RawBuilder<unknown>> = {
  zone: (lock) => sql`
    cross join lateral (select client_id from zone_members where zone = i.zone order by client_id offset 0) z
    cross join lateral (select ${CLIENT} from clients where id = z.client_id and deleted_at is null offset 0 ${lock}) k`,
  broadcast: (lock) => sql`
    cross join lateral (select ${CLIENT} from clients where deleted_at is null offset 0 ${lock}) k`,
}

/** One command, for many clients. */
const group = (kind: 'zone' | 'broadcast', maxPendingPerClient: number, lock: RawBuilder<unknown>) => sql`
  targets as materialized (
    select i.id, k.id as client_id, online, pending, ${reason(sql`pending + takes_place::integer`, maxPendingPerClient)}
    from input i
    ${MEMBERS[kind](lock)}
    cross join lateral (select count(*)::integer as pending from ${pendingOf(sql`k.id`)} e) w
  ),
  target_lists as materialized (
    select id, null::integer as room, array_agg(client_id order by client_id) filter (where reason is null) as client_ids,
      ${hashOf(sql`coalesce(string_agg(client_id, ',' order by client_id) filter (where reason is null), '')`)} as hash,
      coalesce(jsonb_agg(jsonb_build_object('clientId', client_id, 'reason', reason) order by client_id) filter (where reason is not null), '[]') as excluded
    from targets group by id
  )`

/**
 * Who of the `input` rows' targets exists, waits and is excluded, as `targets(id, client_id, online, pending, reason)`.
 * `input` has ord, id, client_id, zone, priority, sure (whether its client's queue has room for it in any case: 0 is then answered as
 * pending) and takes_place (whether it will be stored, as far as is known before), and targets of one `kind`, a group's row alone:
 * each kind more in a statement would cost all of them.
 * A disabled or full client is a target with a reason not to be one.
 */
export const targetsOf = (kind: Target['kind'], maxPendingPerClient: number, lock: RawBuilder<unknown>) =>
  kind === 'client' ? single(maxPendingPerClient, lock) : group(kind, maxPendingPerClient, lock)

/**
 * Whoever deletes or disables a client (`for update`, db/clients.ts) comes before this command or finds it. Presence and claims
 * do not wait for this lock, nor it for them.
 */
export const AGAINST_DELETION = sql`for key share`

/** What stands against a command, as far as its targets and its times say. */
const FAULT = sql`
  when t.id is null then case i.kind when 'client' then 'unknown_client' else 'no_targets' end
  when i.untimely is not null then i.untimely
  when i.kind = 'client' and t.client_ids is null then t.excluded -> 0 ->> 'reason'
  when i.expected is not null and i.expected <> t.hash then 'targets_changed'
  when t.client_ids is null then 'no_targets'`

export const JUDGED = sql`
  judged as materialized (
    select i.*, t.client_ids, t.excluded, t.room, case ${FAULT} end as fault from input i left join target_lists t on t.id = i.id
  )`

/** The same, and then whether grants cover every target and their day limits have room. */
export const judgedByGrants = (timeZone: string) => sql`
  ${SHARES},
  weighed as materialized (
    select i.*, t.client_ids, t.excluded, t.room,
      case ${FAULT} when exists (select 1 from uncovered u where u.id = i.id) then 'not_covered' end as obstacle
    from input i left join target_lists t on t.id = i.id
  ),
  ${taken(timeZone)},
  judged as materialized (
    select w.*, coalesce(w.obstacle, case when exists (select 1 from taken t where t.id = w.id and not t.ok) then 'day_limit' end) as fault
    from weighed w
  )`
