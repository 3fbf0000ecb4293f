import { type RawBuilder, sql } from 'kysely'
import { type Db, isBadValue } from './connect.ts'

/** Against which grants of a principal, named by their scopes, the targets of a command count. */
export interface QuotaClaim {
  /** The one grant for every target, or null: see `byClient`. */
  everyone: string | null
  byClient: ReadonlyMap<string, string>
  /** Executions per day, by grant. */
  dayLimits: Record<string, number>
}

/** How a day's limit stands after it was asked. */
export interface QuotaState {
  scope: string
  ok: boolean
  used: number
  refused: number
  most: number
}

export const CLAIM_COLUMNS = { everyone: 'text', by_client: 'jsonb', day_limits: 'jsonb' }

/** The columns of a command's row that say what its claim is. */
export const claimColumns = (claim: QuotaClaim | null) => ({
  everyone: claim?.everyone ?? null,
  by_client: claim ? Object.fromEntries(claim.byClient) : null,
  day_limits: claim?.dayLimits ?? null,
})

/** The day that an instant is in, by a clock in this time zone. */
export const dayOf = (instant: RawBuilder<unknown>, timeZone: string): RawBuilder<unknown> =>
  sql`(${instant} at time zone ${timeZone}::text)::date`

/** Seconds until the day after begins there: 23 or 25 hours may be between two midnights. */
export const secondsLeft = (instant: RawBuilder<unknown>, timeZone: string): RawBuilder<unknown> =>
  sql`extract(epoch from ((${dayOf(instant, timeZone)} + 1)::timestamp at time zone ${timeZone}::text) - ${instant})::float8`

/** Every target with the grant that it counts against, as `shares(id, client_id, scope)`; without one it is not covered. */
export const SHARES = sql`
  told as (select i.id, e.key as client_id, e.value as scope from input i cross join lateral jsonb_each_text(i.by_client) e),
  shares as materialized (
    select t.id, t.client_id, coalesce(o.scope, i.everyone) as scope
    from input i join targets t on t.id = i.id and t.reason is null left join told o on o.id = t.id and o.client_id = t.client_id
  ),
  uncovered as materialized (select id, count(*)::integer as n from shares where scope is null group by id)`

/**
 * Takes what each row of `weighed` needs that nothing stands against, in a fixed order against deadlocks, as
 * `taken(id, scope, ok, total_used, …)`. A repetition of a key that is known needs nothing.
 */
export const taken = (timeZone: string) => sql`
  taken as materialized (
    select w.*, q.ok, q.total_used, q.total_refused
    from (
      select j.id, j.principal_id, j.ord, s.scope, ${dayOf(sql`j.created_at`, timeZone)} as day, count(*)::integer as n,
        (j.day_limits ->> s.scope)::integer as most
      from weighed j join shares s on s.id = j.id
      where j.obstacle is null
        and not exists (select 1 from idempotency_keys k where k.principal_id = j.principal_id and k.key = j.key)
      group by j.id, j.principal_id, j.ord, j.created_at, j.day_limits, s.scope
      order by j.principal_id, s.scope, j.ord offset 0
    ) w cross join lateral take_quota(w.principal_id, w.scope, w.day, w.n, w.most) q
  )`

/** What was taken for a command that is not stored after all: another of its grants was used up, or its key was taken by a twin. */
export const GIVEN_BACK = sql`
  given_back as materialized (
    select q.ok
    from (
      select t.* from taken t where t.ok and not exists (select 1 from accepted a where a.id = t.id)
      order by t.principal_id, t.scope offset 0
    ) t cross join lateral take_quota(t.principal_id, t.scope, t.day, -t.n, 2147483647) q
  )`

/** How the quotas stand that row `j` asked for, and what else its refusal has to say. */
export const quotaAnswer = (timeZone: string) => sql`
  (select jsonb_agg(jsonb_build_object('scope', t.scope, 'ok', t.ok, 'used', t.total_used, 'refused', t.total_refused, 'most', t.most)
    order by t.scope) from taken t where t.id = j.id) as quotas,
  ${secondsLeft(sql`j.created_at`, timeZone)} as day_seconds_left,
  (select u.n from uncovered u where u.id = j.id) as uncovered,
  (select count(*) from given_back) as given_back`

/** Throws an error that names the setting if PostgreSQL does not know the time zone. */
export async function checkTimeZone(db: Db, timeZone: string): Promise<void> {
  try {
    await sql`select ${dayOf(sql`clock_timestamp()`, timeZone)}`.execute(db)
  } catch (error) {
    throw isBadValue(error) ? new Error(`DAY_TIME_ZONE: PostgreSQL has no ${timeZone}`, { cause: error }) : error
  }
}

/** Counters of days that are over everywhere in the world. */
export async function forgetUsage(db: Db): Promise<void> {
  await sql`delete from grant_usage where day < current_date - 2`.execute(db)
}
