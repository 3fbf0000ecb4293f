import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    alter table principals add column grants jsonb not null default '[]';
    alter table tokens add column last_used_at timestamptz;
    -- The key before the last rotation works until then; afterwards it is known as one that was rotated away.
    alter table clients add column previous_key_hash bytea, add column previous_key_until timestamptz;
    -- Deleted clients included: whoever comes with the key of one is recognised.
    drop index clients_key;
    create unique index clients_key on clients (key_hash);
    create unique index clients_previous_key on clients (previous_key_hash) where previous_key_hash is not null;
    create index clients_previous_key_until on clients (previous_key_until) where previous_key_until is not null;

    -- What was sent by each grant on each day, and what was refused because the limit was reached.
    create table grant_usage (
      principal_id uuid not null references principals (id),
      scope text not null,
      day date not null,
      used integer not null,
      refused integer not null,
      primary key (principal_id, scope, day)
    ) with (fillfactor = 50);

    -- Takes n of a day's limit, all or nothing. A function, because it sees what earlier calls of the same statement took and
    -- what others have committed since that statement began: so the limit is exact. A negative n gives back.
    create function take_quota(of_principal uuid, of_scope text, on_day date, n integer, most integer,
      out ok boolean, out total_used integer, out total_refused integer)
    language plpgsql as $$
    begin
      insert into grant_usage as u (principal_id, scope, day, used, refused)
        select of_principal, of_scope, on_day, n, 0 where n <= most
        on conflict (principal_id, scope, day) do update set used = u.used + n where u.used + n <= most
        returning u.used, u.refused into total_used, total_refused;
      ok := found;
      if not ok then
        insert into grant_usage as u (principal_id, scope, day, used, refused) values (of_principal, of_scope, on_day, 0, n)
          on conflict (principal_id, scope, day) do update set refused = u.refused + n
          returning u.used, u.refused into total_used, total_refused;
      end if;
    end $$;

    create table audit (
      id bigint generated always as identity primary key,
      at timestamptz not null default clock_timestamp(),
      kind text not null,
      subject text not null,
      -- null: the server itself
      principal text,
      address text,
      request_id text,
      before jsonb,
      after jsonb
    );
    create index audit_at on audit (at);
    create index audit_subject on audit (subject, id);
    create index audit_principal on audit (principal, id);

    create table security_events (
      id bigint generated always as identity primary key,
      kind text not null,
      severity text not null,
      subject text not null,
      minute timestamptz not null,
      principal text,
      client_id text,
      address text,
      detail text not null,
      count bigint not null,
      first_at timestamptz not null,
      last_at timestamptz not null,
      unique (kind, subject, minute)
    );
    create index security_events_at on security_events (first_at);
  `.execute(db)
}
