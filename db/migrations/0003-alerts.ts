import { type Kysely, sql } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`
    -- How far a follower has read the feed; version grows with everything that it stores.
    create table feed_cursors (
      name text primary key,
      xid xid8 not null,
      id bigint not null,
      version bigint not null default 0
    );
    -- From here on: every transaction below the oldest open one is over, and its events are history.
    insert into feed_cursors (name, xid, id) values ('alerts', pg_snapshot_xmin(pg_current_snapshot()), 0);

    create table alerts (
      id uuid primary key,
      kind text not null,
      subject text not null,
      client_id text,
      command_id uuid,
      severity text not null,
      message text not null,
      details jsonb not null,
      count integer not null,
      opened_at timestamptz not null default clock_timestamp(),
      last_at timestamptz not null,
      acknowledged_at timestamptz,
      acknowledged_by text,
      note text,
      resolved_at timestamptz,
      resolution text
    );
    create unique index alerts_open on alerts (kind, subject) where resolved_at is null;
    create index alerts_client on alerts (client_id, id) where client_id is not null;
    create index alerts_command on alerts (command_id, id) where command_id is not null;
  `.execute(db)
}
