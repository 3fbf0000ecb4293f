import type { TestDatabase } from '../support/database.ts'

type Sql = TestDatabase['query']

const DAY_MS = 86_400_000

/** The id that a command has that was sent so many days earlier: version 7 begins with the time in milliseconds. */
function olderId(id: string, days: number): string {
  const digits = id.replaceAll('-', '')
  const time = (Number.parseInt(digits.slice(0, 12), 16) - days * DAY_MS).toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-${id.slice(14)}`
}

/** Sets a command and all that belongs to it back in time, as if it had been sent `days` ago; answers its id of then. */
export async function age(sql: Sql, id: string, days: number): Promise<string> {
  const older = olderId(id, days)
  await sql(
    `with sent as (
      insert into commands (id, target, action, payload, priority, delivery, start_timeout_seconds, timeout_seconds, max_retries,
        total, excluded, created_by, created_at, not_before, expires_at)
      select $2, target, action, payload, priority, delivery, start_timeout_seconds, timeout_seconds, max_retries,
        total, excluded, created_by, created_at - make_interval(days => $3), not_before, expires_at from commands where id = $1
    ),
    moved as (
      update executions set command_id = $2, queued_at = queued_at - make_interval(days => $3),
        delivered_at = delivered_at - make_interval(days => $3), started_at = started_at - make_interval(days => $3),
        completed_at = completed_at - make_interval(days => $3)
      where command_id = $1
    ),
    told as (update events set command_id = $2, at = at - make_interval(days => $3) where command_id = $1)
    delete from commands where id = $1`,
    [id, older, days],
  )
  return older
}

/** Sets an alert back in time, as if it had been opened `days` ago, and resolved, if it was, so many ago; answers its id of then. */
export async function ageAlert(sql: Sql, id: string, days: number, resolvedDays = days): Promise<string> {
  const older = olderId(id, days)
  await sql(
    `update alerts set id = $2, opened_at = opened_at - make_interval(days => $3), last_at = last_at - make_interval(days => $3),
      resolved_at = resolved_at - make_interval(days => $4) where id = $1`,
    [id, older, days, resolvedDays],
  )
  return older
}

/** Keeps, in a table `removals`, how many rows each statement removes from this one. */
export async function countRemovals(sql: Sql, table: string): Promise<void> {
  await sql(
    `create table if not exists removals (of text, n integer);
    create or replace function count_removals() returns trigger language plpgsql as $$
      begin insert into removals select tg_table_name, count(*) from gone having count(*) > 0; return null; end $$;
    create trigger count_removals after delete on ${table} referencing old table as gone
      for each statement execute function count_removals()`,
  )
}

/** Commands for one client that ended (or not) `days` ago, with the events of their lives. */
export async function fillHistory(
  sql: Sql,
  { count, days, clientId, status = 'completed' }: { count: number; days: number; clientId: string; status?: string },
): Promise<void> {
  await sql(
    `with sent as (
      insert into commands (id, target, action, priority, delivery, start_timeout_seconds, timeout_seconds, max_retries, total,
        created_by, created_at, expires_at)
      select (lpad(to_hex(floor(date_part('epoch', at) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
          || '8' || substr(md5(random()::text), 1, 15))::uuid,
        jsonb_build_object('kind', 'client', 'clientId', $3::text), 'print', 5, 'at_most_once', 3600, 3600, 3, 1, 'history', at,
        at + interval '7 days'
      from generate_series(1, $1::integer) n, lateral (select clock_timestamp() - make_interval(days => $2) + n * interval '1 millisecond' as at) t
      returning id, created_at
    ),
    executed as (
      insert into executions (command_id, client_id, status, attempt, priority, expires_at, queued_at, delivered_at, started_at, completed_at)
      select id, $3, $4, 1, 5, created_at + interval '7 days', created_at, created_at, created_at, created_at from sent
    )
    insert into events (type, command_id, client_id, attempt, at)
    select type, id, $3, 1, created_at
    from sent, unnest(array['command.created', 'execution.queued', 'execution.delivered', 'execution.running', 'execution.' || $4]) type`,
    [count, days, clientId, status],
  )
}

/** What is there without what it belongs to; nothing, at any moment. News of an alert may be younger than its command was. */
export async function orphans(sql: Sql): Promise<unknown[]> {
  return await sql(
    `select 'event' as what, e.command_id from events e
      where e.command_id is not null and e.type not like 'alert.%' and not exists (select 1 from commands c where c.id = e.command_id)
    union all
    select 'execution', e.command_id from executions e
      where not exists (select 1 from commands c where c.id = e.command_id)
        or not exists (select 1 from clients k where k.id = e.client_id)
    union all
    select 'incomplete command', c.id from commands c
      where c.total <> (select count(*) from executions e where e.command_id = c.id)
    union all
    select 'command without its beginning', c.id from commands c
      where not exists (select 1 from events e where e.command_id = c.id and e.type = 'command.created')`,
  )
}
